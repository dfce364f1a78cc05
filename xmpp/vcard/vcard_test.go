package vcard_test

import (
	"testing"

	"parley/xmpp/element"
	"parley/xmpp/vcard"
)

func parse(t *testing.T, s string) *element.Element {
	t.Helper()
	el, err := element.Parse([]byte(s), element.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return el
}

const temp = `<vCard xmlns='vcard-temp'><FN>Alice A.</FN><N><FAMILY>A.</FAMILY><GIVEN>Alice</GIVEN></N><BDAY>1990-01-02</BDAY>` +
	`<TEL><WORK/><VOICE/><NUMBER>+1-23</NUMBER></TEL><EMAIL><HOME/><USERID>a@b.c</USERID></EMAIL><ADR><HOME/><STREET>Way 1</STREET><CTRY>X</CTRY></ADR>` +
	`<ORG><ORGNAME>Org</ORGNAME><ORGUNIT>Unit</ORGUNIT></ORG><JABBERID>alice@example.org</JABBERID><DESC>words</DESC></vCard>`

// A card survives the way there and back, except for its picture, which is the profile's.
func TestRoundTrip(t *testing.T) {
	was := parse(t, temp)
	four := vcard.Four(was, nil)
	if got := four.Child("", "tel").ChildText("", "uri"); got != "tel:+1-23" {
		t.Errorf("the number became %q", got)
	}
	if got := four.Child("", "org").ChildrenNamed("", "text"); len(got) != 2 || got[1].Text() != "Unit" {
		t.Errorf("the organisation became %v", four.Child("", "org"))
	}
	if back := vcard.Temp(four, nil); !element.Equal(back, was) {
		t.Errorf("came back as\n%v\nand not as\n%v", back, was)
	}
}

// What one form does not know is kept when the other is written; what it knows is replaced.
func TestKept(t *testing.T) {
	had := parse(t, `<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>old</text></fn><lang><language-tag>fr</language-tag></lang></vcard>`)
	four := vcard.Four(parse(t, `<vCard xmlns='vcard-temp'><FN>new</FN><PHOTO><BINVAL>AAAA</BINVAL></PHOTO></vCard>`), had)
	if four.Child("", "lang") == nil || four.Child("", "fn").ChildText("", "text") != "new" || len(four.Elements()) != 2 {
		t.Errorf("kept %v", four)
	}
	if back := vcard.Temp(four, parse(t, `<vCard xmlns='vcard-temp'><MAILER>x</MAILER><FN>old</FN></vCard>`)); back.ChildText("", "MAILER") != "x" || len(back.Elements()) != 2 {
		t.Errorf("kept %v", back)
	}
}
