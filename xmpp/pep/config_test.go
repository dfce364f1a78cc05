package pep_test

import (
	"testing"

	"parley/xmpp/pep"
)

// A form of every field, as it is shown, changes nothing when it is submitted, and is met.
func TestConfigRoundTrip(t *testing.T) {
	c := pep.Default()
	c.Access, c.Groups, c.MaxItems, c.Transient, c.Chat = pep.Roster, []string{"friends"}, pep.MaxItems, true, true
	form := map[string][]string{"FORM_TYPE": {pep.NSConfig}}
	for _, f := range c.Fields() {
		form[f.Name] = f.Values
	}
	got, err := c.With(form, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Meets(form); err != nil {
		t.Errorf("what was shown is not met: %v", err)
	}
	if err := pep.Default().Meets(form); err == nil {
		t.Error("another configuration meets it")
	}
	for name, value := range map[string]string{"max_items": "0", "access_model": "x", "persist_items": "perhaps", "publish_model": "x", "max_payload_size": "-1"} {
		if _, err := c.With(map[string][]string{"pubsub#" + name: {value}}, false); err == nil {
			t.Errorf("%s may be %q", name, value)
		}
	}
}
