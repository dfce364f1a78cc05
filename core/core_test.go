package core

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/quick"
)

// nasty makes names of the characters that spellings stumble over.
func nasty(r *rand.Rand) string {
	alphabet := []rune("ab7._-=+@:/%~ ABZÄß漢\u0000\"&'<>")
	n := 1 + r.IntN(12)
	var b strings.Builder
	for range n {
		b.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

var spellers = []Speller{
	{Native: Matrix, Home: "example.org", Max: 200},
	{Native: XMPP, Home: "example.org", Max: 1023},
}

func ours(domain string) bool { return domain == "example.org" || domain == "example.com" }

// Every address reads back as itself, and no two have the same spelling.
func TestSpellingsAreReversible(t *testing.T) {
	for _, s := range spellers {
		seen := map[string]Address{}
		check := func(seed uint64) bool {
			r := rand.New(rand.NewPCG(seed, 1))
			a := Address{Network: Networks[1+r.IntN(len(Networks)-1)], Name: nasty(r), Domain: "a.example.net"}
			name, domain, hashed := s.Spell(a)
			if hashed {
				return false
			}
			if other, dup := seen[name+"@"+domain]; dup && other != a {
				t.Logf("%v and %v are both %s", a, other, name)
				return false
			}
			seen[name+"@"+domain] = a
			back, err := s.Read(name, domain, ours)
			if err != nil || back != a {
				t.Logf("%v is spelled %q and reads back as %v, %v", a, name, back, err)
				return false
			}
			return true
		}
		if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
			t.Error(err)
		}
	}
}

func TestSpellings(t *testing.T) {
	mx, xm := spellers[0], spellers[1]
	carol := Address{XMPP, "carol", "prosody.test"}
	dave := Address{Matrix, "Dave", "b.net"}
	for _, c := range []struct {
		s      Speller
		a      Address
		name   string
		domain string
	}{
		{mx, LocalAddress("alice", "example.org"), "alice", "example.org"},
		{xm, LocalAddress("alice", "example.com"), "alice", "example.com"},
		{mx, carol, "_xmpp_carol=40prosody.test", "example.org"},
		{xm, carol, "carol", "prosody.test"},
		{mx, dave, "Dave", "b.net"},
		{xm, dave, "_matrix_=44ave=40b.net", "example.org"},
	} {
		name, domain, hashed := c.s.Spell(c.a)
		if name != c.name || domain != c.domain || hashed {
			t.Errorf("%v on %s is %s@%s", c.a, c.s.Native, name, domain)
		}
		if back, err := c.s.Read(name, domain, ours); err != nil || back != c.a {
			t.Errorf("%s@%s reads back as %v, %v", name, domain, back, err)
		}
	}
}

// A spelling that the speller would not have written is none: one address has
// one spelling, and nobody passes for another by an odd one.
func TestOnlyOneSpelling(t *testing.T) {
	s := spellers[0]
	for _, name := range []string{
		"_xmpp_carol=40prosody.tes=74", // 't' needs no escape
		"_xmpp_carol=4", "_xmpp_carol=zz40", "_xmpp_carol=4Zx", "_xmpp_carol=C3=A4=40a",
		"_xmpp_carol", "_xmpp_", "_", "_xmpp", "_matrix_x=40b.net", "_local_alice=40example.org",
		"_nosuch_carol=40a.net", "_xmpp_Carol=40a.net", "_xmpp_carol=40",
	} {
		if a, err := s.Read(name, "example.org", ours); err == nil {
			t.Errorf("%q was read as %v", name, a)
		}
	}
}

func TestLongNamesAreHashed(t *testing.T) {
	s := spellers[0]
	long := Address{XMPP, strings.Repeat("x", 600), "a.net"}
	name, domain, hashed := s.Spell(long)
	if !hashed || len(name) > s.Max || domain != "example.org" {
		t.Fatalf("spelled %s@%s", name, domain)
	}
	if _, err := s.Read(name, domain, ours); !errors.Is(err, ErrHashed) {
		t.Errorf("reading a hash: %v", err)
	}
}

func TestAddressText(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		a := Address{Network: Networks[r.IntN(len(Networks))], Name: nasty(r), Domain: "a.net"}
		back, err := ParseAddress(a.String())
		return err == nil && back == a
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 5000}); err != nil {
		t.Error(err)
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "alice", "a.b", "a_b-c", "9lives", strings.Repeat("a", 64)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "Alice", ".a", "a.", "_a", "a_", "-a", "a..b", "a b", "ä", "a@b", "a=b", "a+b", strings.Repeat("a", 65)} {
		if CheckName(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
	if a, err := ParseLocal(" Alice@Example.ORG"); err != nil || a != LocalAddress("alice", "example.org") {
		t.Errorf("ParseLocal: %v, %v", a, err)
	}
	if !Reserved("PostMaster") || Reserved("alice") {
		t.Error("reserved names are wrong")
	}
}

// Every kept kind comes back from the store as it went in.
func TestContentRoundTrip(t *testing.T) {
	key := ""
	levels := DefaultLevels()
	levels.Users[Address{XMPP, "carol", "a.net"}] = 50
	for _, c := range []Content{
		Message{HTMLBody("a\u0000b", "<b>a</b>")},
		Edit{Target: "e", Body: FileBody(File{Media: "m", Type: "audio/ogg", Duration: 1500e6, Voice: true}, "listen")},
		Retract{Target: "e", Reason: "r"}, Reaction{Target: "e", Key: "👍"},
		Membership{Target: LocalAddress("a", "b"), Standing: Joined, Nick: "A"},
		Change{Aspect: AspectLevels, Levels: &levels},
		Change{Aspect: AspectCreated, Creation: &Creation{Shape: Direct, Creators: []Address{LocalAddress("a", "b")}, Supreme: true, Version: "12"}},
		Extension{Type: "m.x", StateKey: &key, Data: []byte{0, 255}},
	} {
		k, data, err := EncodeContent(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeContent(k, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, again, _ := EncodeContent(back); string(again) != string(data) {
			t.Errorf("%s came back as %s", data, again)
		}
	}
	if _, err := DecodeContent(KindTyping, nil); err == nil {
		t.Error("typing was kept")
	}
}

func TestCarry(t *testing.T) {
	target := &Event{Content: Message{TextBody("What do you think of this?")}}
	whole := Capabilities{Grades: map[Feature]Grade{FeatureEdit: Whole, FeatureReaction: Whole, FeatureRetract: Whole,
		FeatureLanguages: Whole, FeatureFormatting: Whole, FeatureEmote: Whole, FeatureReply: Whole, FeatureExtension: Whole}}
	poor := Capabilities{Grades: map[Feature]Grade{FeatureEdit: Fallback, FeatureReaction: Fallback}}
	say := func(c Content) string {
		if c == nil {
			return "(nothing)"
		}
		b, _ := BodyOf(c)
		return b.Plain()
	}
	two := Body{Root: Part{Join: ChooseOne, Parts: []Part{
		{Type: TypePlain, Language: "en", Text: "house"}, {Type: TypePlain, Language: "de", Text: "Haus"}}}}
	for _, c := range []struct {
		in     Content
		out    string
		losses []Feature
	}{
		{Edit{Target: "e", Body: TextBody("better")}, "corrected: better", []Feature{FeatureEdit}},
		{Reaction{Target: "e", Key: "👍"}, "reacted with 👍 “What do you think of this?”", []Feature{FeatureEmote, FeatureReply, FeatureReaction}},
		{Retract{Target: "e"}, "(nothing)", []Feature{FeatureRetract}},
		{Message{two}, "house", []Feature{FeatureLanguages}},
		{Message{HTMLBody("x", "<b>x</b>")}, "x", []Feature{FeatureFormatting}},
		{Message{Body{Encrypted: &Encrypted{Scheme: "omemo"}}}, "[encrypted with omemo: your client cannot read this]", []Feature{FeatureEncrypted}},
	} {
		got, losses := Carry(c.in, target, poor)
		if g := strings.TrimPrefix(say(got), "/me "); g != c.out {
			t.Errorf("%+v is carried as %q, not %q", c.in, g, c.out)
		}
		if len(losses) != len(c.losses) {
			t.Errorf("%+v: losses %v, not %v", c.in, losses, c.losses)
			continue
		}
		for i, l := range losses {
			if l.Feature != c.losses[i] {
				t.Errorf("%+v: losses %v, not %v", c.in, losses, c.losses)
			}
		}
		if c.losses[0] == FeatureEncrypted {
			continue
		}
		if _, losses := Carry(c.in, target, whole); len(losses) != 0 {
			t.Errorf("%+v is lost where all can be carried: %v", c.in, losses)
		}
	}
}

func TestPlainWithoutPlain(t *testing.T) {
	b := Body{Root: Part{Type: TypeHTML, Text: "<p>a &lt; b</p><script>"}}
	if got := b.Plain(); got != "a < b" {
		t.Errorf("got %q", got)
	}
	if got := (Body{Root: Part{Join: ChooseOne, Parts: []Part{
		{Type: TypePlain, Language: "en", Text: "house"}, {Type: TypePlain, Language: "de", Text: "Haus"}}}}).Plain("fr", "de"); got != "Haus" {
		t.Errorf("got %q", got)
	}
}

// FuzzSpeller: whatever reads as an address is spelled as it was read, so that
// nobody has two spellings.
func FuzzSpeller(f *testing.F) {
	for _, seed := range []string{"alice", "_xmpp_carol=40a.net", "_xmpp_+abc", "_matrix_=44ave=40b.net", "_", "_xmpp_=", "_xmpp_a=4", "_irc_x=00=40a"} {
		f.Add(seed, "example.org")
		f.Add(seed, "a.net")
	}
	f.Fuzz(func(t *testing.T, name, domain string) {
		for _, s := range spellers {
			a, err := s.Read(name, domain, ours)
			if err != nil || len(name) > s.Max {
				continue
			}
			if n, d, hashed := s.Spell(a); n != name || d != domain || hashed {
				t.Errorf("%q@%q reads as %v and is spelled %q@%q", name, domain, a, n, d)
			}
		}
	})
}
