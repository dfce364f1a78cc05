// Package pep knows what accounts publish: their nodes with configuration, items, affiliations and subscriptions, and who may do what
// with them. It keeps the rows and decides; the sessions of package c2s read requests, write answers and tell subscribers.
//
// What nodes mean to the server, and which of them it makes up, is none of its business.
package pep

import (
	"context"
	"embed"
	"io/fs"

	"parley/store"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// The namespaces of publishing and subscribing.
const (
	NS       = "http://jabber.org/protocol/pubsub" // XEP-0060
	NSOwner  = NS + "#owner"
	NSErrors = NS + "#errors"
	NSEvent  = NS + "#event"
	NSConfig = NS + "#node_config"
)

// The bounds of what one account may publish.
const (
	MaxNodes    = 300
	MaxItems    = 1000      // of a node
	MaxNodeName = 1023      // bytes
	MaxItemID   = 1023      // bytes
	MaxPayload  = 220 << 10 // bytes of an item as XML
	MaxBytes    = 16 << 20  // of all items of an account
	MaxMembers  = 500       // affiliations of a node, and as many subscriptions
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the tables up to date. Those of nodes and items are older than this package and made by package c2s, before.
func Migrate(ctx context.Context, db *store.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return db.Migrate(ctx, "xmpp-pep", dir)
}

// Fail is a stanza error with a condition of publishing and subscribing's own.
//
// spec: XEP-0060 §15.2
func Fail(c translate.Condition, name string) error {
	return &translate.Error{Condition: c, Extra: element.New(NSErrors, name)}
}

// Unsupported is the error for a feature that is not offered.
func Unsupported(feature string) error {
	return &translate.Error{Condition: translate.FeatureNotImplemented,
		Extra: element.New(NSErrors, "unsupported").SetAttr("feature", feature)}
}

var errNoNode = translate.Fail(translate.ItemNotFound, "there is no such node")
