package wire

import "testing"

// Loose copies numbers and is as strict as Strict about everything else.
func TestLoose(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1.50, "a":[-0,1e3,2E-7,12345678901234567890]}`: `{"a":[-0,1e3,2E-7,12345678901234567890],"b":1.50}`,
		`{"b":"\u00e9","a":{}}`:                              `{"a":{},"b":"é"}`,
	} {
		if got, err := Loose([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	for _, bad := range []string{`{"a":1,"a":2}`, `01`, `1.`, `.5`, `+1`, `1e`, `--1`, `1-2`, `"\ud800"`, `{} x`} {
		if got, err := Loose([]byte(bad)); err == nil {
			t.Errorf("%s: %s", bad, got)
		}
	}
}
