package core

import (
	"fmt"
	"strings"
)

// Feature names something that a network may or may not carry.
type Feature string

// The features that are graded.
const (
	FeatureText       Feature = "text"
	FeatureLanguages  Feature = "languages" // one text in several languages
	FeatureFormatting Feature = "formatting"
	FeatureEmote      Feature = "emote"
	FeatureReply      Feature = "reply"
	FeatureThread     Feature = "thread"
	FeatureMentions   Feature = "mentions"
	FeatureFile       Feature = "file"
	FeatureVoice      Feature = "voice"
	FeatureEdit       Feature = "edit"
	FeatureRetract    Feature = "retract"
	FeatureReaction   Feature = "reaction"
	FeatureDelivered  Feature = "delivered"
	FeatureDisplayed  Feature = "displayed"
	FeatureTyping     Feature = "typing"
	FeaturePresence   Feature = "presence"
	FeatureEncrypted  Feature = "encrypted"
	FeatureExpiry     Feature = "expiry"
	FeatureName       Feature = "name"
	FeatureTopic      Feature = "topic"
	FeatureAvatar     Feature = "avatar"
	FeatureLevels     Feature = "levels"
	FeatureMembership Feature = "membership"
	FeatureModeration Feature = "moderation"
	FeatureExtension  Feature = "extension"
)

// Grade says how well a feature is carried.
type Grade int

// The grades. A feature that a table does not name is not carried.
const (
	No       Grade = iota // not at all
	Fallback              // as something else that people can read
	Whole
)

func (g Grade) String() string {
	return [...]string{"no", "fallback", "whole"}[g]
}

// Capabilities are what one network, or one conversation on it, can carry.
type Capabilities struct {
	Grades map[Feature]Grade
	// MaxText is the longest text in bytes, MaxFile the largest file; zero
	// for no limit.
	MaxText int
	MaxFile int64
}

// Grade is how f is carried.
func (c Capabilities) Grade(f Feature) Grade { return c.Grades[f] }

// Loss says what of an event was not carried as it was meant.
type Loss struct {
	Feature Feature `json:"feature"`
	// Fallback is what was sent instead; empty if nothing was.
	Fallback string `json:"fallback,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

func (l Loss) String() string {
	s := string(l.Feature)
	if l.Fallback != "" {
		s += " (as " + l.Fallback + ")"
	}
	if l.Detail != "" {
		s += ": " + l.Detail
	}
	return s
}

// Losses lists losses in words.
func Losses(all []Loss) string {
	words := make([]string, len(all))
	for i, l := range all {
		words[i] = l.String()
	}
	return strings.Join(words, ", ")
}

// Carry is the one place that decides how a content goes to those who have
// the capabilities caps: whole, with a declared fallback, or not at all, which
// is a nil content. target is the event that it is about, where the caller has
// it, for the fallbacks that quote.
func Carry(c Content, target *Event, caps Capabilities) (Content, []Loss) {
	switch c := c.(type) {
	case Message:
		body, losses := carryBody(c.Body, caps)
		return Message{Body: body}, losses
	case Edit:
		body, losses := carryBody(c.Body, caps)
		switch caps.Grade(FeatureEdit) {
		case Whole:
			return Edit{Target: c.Target, Body: body}, losses
		case Fallback:
			return Message{Body: prefixed(body, "corrected: ")},
				append(losses, Loss{FeatureEdit, "a new message", ""})
		}
		return nil, []Loss{{Feature: FeatureEdit}}
	case Retract:
		return carrySimple(c, FeatureRetract, caps, "asked to delete"+quoted(target), Body{ReplyTo: c.Target})
	case Reaction:
		return carrySimple(c, FeatureReaction, caps, "reacted with "+c.Key+quoted(target), Body{ReplyTo: c.Target, Tone: Emote})
	case Extension:
		if caps.Grade(FeatureExtension) == Whole {
			return c, nil
		}
		return nil, []Loss{{Feature: FeatureExtension, Detail: c.Type}}
	}
	return c, nil
}

func carrySimple(c Content, f Feature, caps Capabilities, words string, body Body) (Content, []Loss) {
	switch caps.Grade(f) {
	case Whole:
		return c, nil
	case Fallback:
		body.Root = TextBody(words).Root
		b, losses := carryBody(body, caps)
		return Message{Body: b}, append(losses, Loss{f, "a message", words})
	}
	return nil, []Loss{{Feature: f}}
}

func quoted(e *Event) string {
	if e == nil {
		return ""
	}
	b, ok := BodyOf(e.Content)
	if !ok {
		return ""
	}
	const most = 60
	text := []rune(strings.Join(strings.Fields(b.Plain()), " "))
	if len(text) > most {
		text = append(text[:most], '…')
	}
	return fmt.Sprintf(" “%s”", string(text))
}

func prefixed(b Body, prefix string) Body {
	b.Root = Part{Disposition: Render, Type: TypePlain, Text: prefix + b.Plain()}
	return b
}

// carryBody reduces a body to what caps allow.
func carryBody(b Body, caps Capabilities) (Body, []Loss) {
	var losses []Loss
	lose := func(f Feature, as string) { losses = append(losses, Loss{Feature: f, Fallback: as}) }
	if b.Encrypted != nil {
		if caps.Grade(FeatureEncrypted) != Whole {
			lose(FeatureEncrypted, "a notice")
			words := "[encrypted with " + b.Encrypted.Scheme + ": your client cannot read this]"
			return Body{Root: TextBody(words).Root, Tone: Notice}, losses
		}
		return b, nil
	}
	plain := b.Texts(TypePlain)
	if len(plain) > 1 && caps.Grade(FeatureLanguages) != Whole && severalLanguages(plain) {
		lose(FeatureLanguages, "the first language")
		b.Root = keep(b.Root, plain[0].Language)
	}
	if b.HTML() != "" && caps.Grade(FeatureFormatting) == No {
		lose(FeatureFormatting, "plain text")
		b.Root = TextBody(b.Plain()).Root
	}
	if b.Tone == Emote && caps.Grade(FeatureEmote) != Whole {
		lose(FeatureEmote, "/me")
		b = prefixed(b, "/me ")
		b.Tone = Plainly
	}
	for _, r := range []struct {
		f   Feature
		has bool
	}{{FeatureReply, b.ReplyTo != ""}, {FeatureThread, b.Thread != ""}, {FeatureExpiry, !b.Expires.IsZero()}} {
		if r.has && caps.Grade(r.f) == No {
			lose(r.f, "")
		}
	}
	if caps.MaxText > 0 && len(b.Plain()) > caps.MaxText {
		lose(FeatureText, "several messages")
	}
	return b, losses
}

func severalLanguages(parts []Part) bool {
	for _, p := range parts[1:] {
		if p.Language != parts[0].Language {
			return true
		}
	}
	return false
}

// keep drops the texts in other languages than lang.
func keep(p Part, lang string) Part {
	if len(p.Parts) == 0 {
		return p
	}
	kept := p
	kept.Parts = nil
	for _, c := range p.Parts {
		if c.File != nil || len(c.Parts) > 0 || c.Language == lang {
			kept.Parts = append(kept.Parts, keep(c, lang))
		}
	}
	return kept
}
