// Package refusal is an interpreter at the door to other Matrix servers: what
// the packages for clients and the hub refuse, it says in the words of
// federation.
package refusal

import (
	"parley/matrix/client"
	"parley/matrix/federation"
)

// Of is err as another server is told it, an [*federation.Error], if it is a
// refusal; our own failures stay what they are.
//
// spec: MX 1.19 SS §1
func Of(err error) error {
	if err == nil {
		return nil
	}
	e, internal := client.AsError(err)
	if internal {
		return err
	}
	out := federation.Errorf(e.Status, string(e.Errcode), "%s", e.Text)
	out.RetryAfter, out.Fields = e.RetryAfter, e.Fields
	return out
}
