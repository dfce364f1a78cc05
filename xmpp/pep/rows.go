package pep

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Item is one item of a node.
type Item struct {
	ID        string
	Publisher string // JID; empty for what the server makes up
	Published time.Time
	Payload   *element.Element
}

// ReadNode reads the configuration of a node; found is false if there is no such node.
func ReadNode(v hub.View, account core.Address, node string) (c Config, found bool, err error) {
	var data []byte
	err = hubstore.Querier(v).QueryRow(`SELECT config FROM xmpp_pep_nodes WHERE account = $1 AND node = $2`, account.String(), node).Scan(&data)
	if store.NotFound(err) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err == nil, err
}

// ReadNodes reads all nodes of an account.
func ReadNodes(v hub.View, account core.Address) (map[string]Config, error) {
	rows, err := hubstore.Querier(v).Query(`SELECT node, config FROM xmpp_pep_nodes WHERE account = $1`, account.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]Config{}
	for rows.Next() {
		var name string
		var data []byte
		var c Config
		if err := rows.Scan(&name, &data); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, err
		}
		out[name] = c
	}
	return out, rows.Err()
}

// WriteNode changes a node's configuration, and takes off the items that it keeps no longer.
func WriteNode(tx hub.Tx, account core.Address, node string, c Config) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = hubstore.Tx(tx).Exec(`INSERT INTO xmpp_pep_nodes (account, node, config) VALUES ($1, $2, $3)
		ON CONFLICT (account, node) DO UPDATE SET config = excluded.config`, account.String(), node, data)
	if err != nil {
		return err
	}
	return cut(tx, account, node, c)
}

// cut takes off the items beyond a node's number.
func cut(tx hub.Tx, account core.Address, node string, c Config) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2 AND item NOT IN
		(SELECT item FROM xmpp_pep_items WHERE account = $1 AND node = $2 ORDER BY seq DESC LIMIT $3)`,
		account.String(), node, int64(c.MaxItems))
	return err
}

// CreateNode makes a node, unless the account has too many.
func CreateNode(tx hub.Tx, account core.Address, node string, c Config) error {
	if node == "" || len(node) > MaxNodeName {
		return translate.Fail(translate.NotAcceptable, "a node has a name of at most 1023 bytes")
	}
	var n int64
	if err := hubstore.Tx(tx).QueryRow(`SELECT COUNT(*) FROM xmpp_pep_nodes WHERE account = $1`, account.String()).Scan(&n); err != nil {
		return err
	}
	if n >= MaxNodes {
		return &translate.Error{Condition: translate.ConflictError, Text: fmt.Sprintf("an account has at most %d nodes", MaxNodes),
			Extra: element.New(NSErrors, "max-nodes-exceeded")}
	}
	return WriteNode(tx, account, node, c)
}

// DeleteNode deletes a node with all that belongs to it.
func DeleteNode(tx hub.Tx, account core.Address, node string) error {
	for _, table := range []string{"xmpp_pep_items", "xmpp_pep_affiliations", "xmpp_pep_subscriptions", "xmpp_pep_nodes"} {
		if _, err := hubstore.Tx(tx).Exec(`DELETE FROM `+table+` WHERE account = $1 AND node = $2`, account.String(), node); err != nil {
			return err
		}
	}
	return nil
}

// ReadItems returns the latest items of a node, oldest first.
func ReadItems(v hub.View, account core.Address, node string, limit int) ([]Item, error) {
	out, err := store.List(hubstore.Querier(v), scanItem, `SELECT item, published, publisher, payload FROM xmpp_pep_items
		WHERE account = $1 AND node = $2 ORDER BY seq DESC LIMIT $3`, account.String(), node, int64(limit))
	slices.Reverse(out)
	return out, err
}

func scanItem(row store.Scanner) (it Item, err error) {
	var published int64
	var payload []byte
	if err := row.Scan(&it.ID, &published, &it.Publisher, &payload); err != nil {
		return it, err
	}
	it.Published = time.UnixMilli(published).UTC()
	if len(payload) > 0 {
		if it.Payload, err = element.Parse(payload, StoredLimits); err != nil {
			err = fmt.Errorf("item %q: %w", it.ID, err)
		}
	}
	return it, err
}

// StoredLimits are for what was written here: written out, it may be longer than it was on the stream.
var StoredLimits = element.Limits{Bytes: 4 << 20, Depth: 128, Elements: 1 << 15, Attrs: 128, Names: 2048, Namespaces: 512}

// ReadItem returns one item.
func ReadItem(v hub.View, account core.Address, node, id string) (it Item, found bool, err error) {
	it, err = scanItem(hubstore.Querier(v).QueryRow(`SELECT item, published, publisher, payload FROM xmpp_pep_items
		WHERE account = $1 AND node = $2 AND item = $3`, account.String(), node, id))
	if store.NotFound(err) {
		return it, false, nil
	}
	return it, err == nil, err
}

// WriteItem puts an item on a node and takes off those beyond the node's number.
//
// spec: XEP-0060 §7.1.3
func WriteItem(tx hub.Tx, account core.Address, node string, c Config, it Item) error {
	sql := hubstore.Tx(tx)
	payload := []byte{}
	if it.Payload != nil {
		payload = element.Marshal(it.Payload)
	}
	if len(payload) > c.payload() {
		return Fail(translate.NotAcceptable, "payload-too-big")
	}
	if c.Transient {
		return nil
	}
	var bytes int64
	err := sql.QueryRow(`SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM xmpp_pep_items WHERE account = $1
		AND NOT (node = $2 AND item = $3)`, account.String(), node, it.ID).Scan(&bytes)
	if err != nil {
		return err
	}
	if bytes+int64(len(payload)) > MaxBytes {
		return translate.Fail(translate.ResourceConstraint, fmt.Sprintf("what an account publishes has at most %d bytes", MaxBytes))
	}
	_, err = sql.Exec(`INSERT INTO xmpp_pep_items (account, node, item, seq, published, publisher, payload)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, node, item) DO UPDATE SET
		seq = excluded.seq, published = excluded.published, publisher = excluded.publisher, payload = excluded.payload`,
		account.String(), node, it.ID, int64(tx.NextFeed()), it.Published.UnixMilli(), it.Publisher, payload)
	if err != nil {
		return err
	}
	return cut(tx, account, node, c)
}

// DeleteItem takes an item off a node.
func DeleteItem(tx hub.Tx, account core.Address, node, id string) (found bool, err error) {
	n, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2 AND item = $3`, account.String(), node, id)
	return n > 0, err
}

// DeleteItems empties a node.
func DeleteItems(tx hub.Tx, account core.Address, node string) error {
	_, err := hubstore.Tx(tx).Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2`, account.String(), node)
	return err
}
