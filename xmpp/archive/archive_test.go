package archive

import (
	"testing"

	"parley/xmpp/element"
)

// FuzzParse holds what any query can be read as to its bounds.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`<query xmlns='urn:xmpp:mam:2' queryid='q'/>`,
		`<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/></set></query>`,
		`<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>-1</max><after>x</after></set></query>`,
		`<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>99999999999999999999</max></set><flip-page/></query>`,
		`<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>` +
			`<field var='with'><value>a@b/c</value></field><field var='start'><value>2020-01-31T12:00:00Z</value></field>` +
			`<field var='ids'><value>1</value><value>2</value></field></x></query>`,
		`<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data'><field var='with'><value>@</value></field><field var='end'><value>soon</value></field></x></query>`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		el, err := element.Parse(b, element.DefaultLimits)
		if err != nil {
			return
		}
		r, err := Parse(el)
		if err != nil {
			return
		}
		if r.Max < 0 || r.Max > mostMax || len(r.IDs) > mostIDs || r.CountOnly != (r.Max == 0) {
			t.Errorf("%s is read as %+v", b, r)
		}
	})
}
