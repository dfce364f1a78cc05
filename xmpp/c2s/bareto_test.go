package c2s

import (
	"testing"

	"parley/core"
	"parley/xmpp/element"
)

// The short way to the addressed client says what the long one does.
func TestNativeTo(t *testing.T) {
	for to, want := range map[string]string{
		"a@b": "", "a@b/c": "c", "a@b/d'e": "d'e", "a@b/x>y": "x>y", "": "", "b": "", "a&b@c/d": "",
	} {
		m := element.New("jabber:client", "message").SetAttr("from", "x@y/ to='q'").SetAttr("to", to).SetAttr("id", "1/2")
		m.Append(element.NewText("jabber:client", "body", " to='a@b/z'"))
		e := core.Event{Native: &core.Native{Network: core.XMPP, Data: element.Marshal(m)}}
		if got := nativeTo(&e); got != want {
			t.Errorf("%q: %q, not %q, in %s", to, got, want, e.Native.Data)
		}
	}
}
