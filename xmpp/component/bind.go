package component

import (
	"crypto/subtle"

	"parley/xmpp/element"
	"parley/xmpp/stream"
	"parley/xmpp/translate"
)

// request answers an iq with which a component binds a domain or gives one up; false if a stanza is none.
//
// spec: XEP-0225 §4
func (s *Server) request(ss *session, st *element.Element) bool {
	what := st.First()
	if st.Name.Local != "iq" || st.Attr("type") != "set" || what == nil || what.Name.Space != stream.NSComponentBind {
		return false
	}
	do := map[string]func(*session, *element.Element, string) error{"bind": s.bind, "unbind": s.unbind}[what.Name.Local]
	host, err := translate.ParseJID(what.ChildText(stream.NSComponentBind, "hostname"))
	switch {
	case do == nil || st.Attr("id") == "" || err != nil || host.Local != "":
		err = translate.Fail(translate.BadRequest, "a component binds a domain")
	case host.Resource != "":
		err = translate.Fail(translate.NotAllowed, "a domain has one component here: resources are not bound")
	default:
		err = do(ss, st, host.Domain)
	}
	if err != nil {
		_ = ss.Send(translate.Bounce(st, err))
	}
	return true
}

// bind has a domain served on a stream. To have authenticated for one is to have shown its secret, which is then good for the others
// that have the same.
func (s *Server) bind(ss *session, st *element.Element, domain string) error {
	own, _ := s.secret(ss.domain)
	secret, ok := s.secret(domain)
	switch {
	case !ok || subtle.ConstantTimeCompare([]byte(own), []byte(secret)) != 1:
		return translate.Fail(translate.NotAllowed, "that domain has no component with the secret of this one")
	case s.serves(ss, domain):
		return translate.Fail(translate.ConflictError, "that domain is bound to this stream already")
	}
	answer := result(st)
	answer.Add(stream.NSComponentBind, "bind").Add(stream.NSComponentBind, "hostname").SetText(domain)
	s.serve(ss, domain, answer)
	return nil
}

// unbind ends the service of a domain on a stream.
func (s *Server) unbind(ss *session, st *element.Element, domain string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bound[domain]
	if b == nil || b.on != ss {
		return translate.Fail(translate.ItemNotFound, "that domain is not bound to this stream")
	}
	close(b.gone)
	delete(s.bound, domain)
	_ = ss.Send(result(st))
	return nil
}

func result(st *element.Element) *element.Element {
	return element.New(st.Name.Space, "iq").SetAttr("type", "result").SetAttr("id", st.Attr("id"))
}
