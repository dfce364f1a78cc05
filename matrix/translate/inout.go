package translate

import "parley/core"

// In reads what a client sends. The error is for the client and wraps
// [ErrContent].
func In(r Resolver, e Event) (core.Content, []core.Loss, error) { return nil, nil, ErrContent }

// Out writes a kept content as a Matrix event; its Sender is left empty. Every
// kept content has a form in Matrix, if only a fallback.
func Out(r Resolver, c core.Content) (Event, []core.Loss, error) { return Event{}, nil, ErrContent }

// OutNative is [Out] for a content that came from Matrix and was not changed on
// its way: the native form, but for the keys that the core decides.
func OutNative(r Resolver, c core.Content, n *core.Native) (Event, error) { return Event{}, ErrContent }

// EventType is the event type whose level an action of [core.Levels] sets, and
// ActionOf the reverse; they are each other's inverse.
func EventType(action string) string { return action }

// ActionOf is the inverse of [EventType].
func ActionOf(eventType string) string { return eventType }

// SanitizeHTML keeps of a formatted body what the specification allows.
func SanitizeHTML(s string) string { return s }
