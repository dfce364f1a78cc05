package c2s

import (
	"encoding/json"
	"fmt"
	"time"

	"parley/core"
	"parley/hub"
	"parley/store"
	"parley/store/hubstore"
	"parley/xmpp/element"
	"parley/xmpp/translate"
)

// Limits of personal eventing.
const (
	maxNodes    = 300
	maxPEPItems = 1000
	maxNodeName = 1023
	maxItemID   = 512
	maxPayload  = 220 << 10
)

// The access models that Parley has.
const (
	accessOpen      = "open"
	accessPresence  = "presence"
	accessWhitelist = "whitelist" // the account's own clients
)

// nodeConfig is how a node is configured.
//
// spec: XEP-0060 §16.4.4
type nodeConfig struct {
	Access   string `json:"access"`
	MaxItems int    `json:"max_items"`
	SendLast string `json:"send_last"`
	Title    string `json:"title,omitempty"`
	Silent   bool   `json:"silent,omitempty"` // no notifications of retractions
}

// defaultConfig is that of a new node.
//
// spec: XEP-0163 §5
func defaultConfig(node string) nodeConfig {
	c := nodeConfig{Access: accessPresence, MaxItems: 1, SendLast: "on_sub_and_presence"}
	if node == nsBookmarks {
		c.Access, c.MaxItems, c.SendLast = accessWhitelist, maxPEPItems, "never"
	}
	return c
}

// pepItem is one item of a node.
type pepItem struct {
	ID        string
	Publisher string
	Published time.Time
	Payload   *element.Element
}

// readNode reads the configuration of a node; found is false if there is no such node.
func readNode(q store.Querier, account core.Address, node string) (c nodeConfig, found bool, err error) {
	var data []byte
	err = q.QueryRow(`SELECT config FROM xmpp_pep_nodes WHERE account = $1 AND node = $2`, account.String(), node).Scan(&data)
	if store.NotFound(err) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err == nil, err
}

func readNodes(q store.Querier, account core.Address) (map[string]nodeConfig, error) {
	rows, err := q.Query(`SELECT node, config FROM xmpp_pep_nodes WHERE account = $1`, account.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]nodeConfig{}
	for rows.Next() {
		var name string
		var data []byte
		var c nodeConfig
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

func writeNode(tx *store.Tx, account core.Address, node string, c nodeConfig) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO xmpp_pep_nodes (account, node, config) VALUES ($1, $2, $3)
		ON CONFLICT (account, node) DO UPDATE SET config = excluded.config`, account.String(), node, data)
	return err
}

// createNode makes a node, unless the account has too many.
func createNode(tx *store.Tx, account core.Address, node string, c nodeConfig) error {
	if node == "" || len(node) > maxNodeName {
		return translate.Fail(translate.NotAcceptable, "a node has a name of at most 1023 bytes")
	}
	var n int64
	if err := tx.QueryRow(`SELECT COUNT(*) FROM xmpp_pep_nodes WHERE account = $1`, account.String()).Scan(&n); err != nil {
		return err
	}
	if n >= maxNodes {
		return translate.Fail(translate.ResourceConstraint, "this account has too many nodes")
	}
	return writeNode(tx, account, node, c)
}

// readItems returns the latest items of a node, oldest first.
func readItems(q store.Querier, account core.Address, node string, limit int) ([]pepItem, error) {
	rows, err := q.Query(`SELECT item, published, publisher, payload FROM xmpp_pep_items
		WHERE account = $1 AND node = $2 ORDER BY seq DESC LIMIT $3`, account.String(), node, int64(limit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []pepItem
	for rows.Next() {
		it, err := scanItem(rows)
		if err != nil {
			return nil, err
		}
		out = append([]pepItem{it}, out...)
	}
	return out, rows.Err()
}

func scanItem(rows interface{ Scan(...any) error }) (it pepItem, err error) {
	var published int64
	var payload []byte
	if err := rows.Scan(&it.ID, &published, &it.Publisher, &payload); err != nil {
		return it, err
	}
	it.Published = time.UnixMilli(published).UTC()
	if len(payload) > 0 {
		if it.Payload, err = element.Parse(payload, storedLimits); err != nil {
			err = fmt.Errorf("item %q: %w", it.ID, err)
		}
	}
	return it, err
}

// storedLimits are for what was written here: written out, it may be longer than it was on the stream.
var storedLimits = element.Limits{Bytes: 4 << 20, Depth: 128, Elements: 1 << 15, Attrs: 128, Names: 2048, Namespaces: 512}

// readItem returns one item.
func readItem(q store.Querier, account core.Address, node, id string) (it pepItem, found bool, err error) {
	it, err = scanItem(q.QueryRow(`SELECT item, published, publisher, payload FROM xmpp_pep_items
		WHERE account = $1 AND node = $2 AND item = $3`, account.String(), node, id))
	if store.NotFound(err) {
		return it, false, nil
	}
	return it, err == nil, err
}

// writeItem puts an item on a node and takes off those beyond the node's number.
func writeItem(tx hub.Tx, account core.Address, node string, c nodeConfig, it pepItem) error {
	sql := hubstore.Tx(tx)
	var payload []byte
	if it.Payload != nil {
		payload = element.Marshal(it.Payload)
	}
	if len(payload) > maxPayload {
		return &translate.Error{Condition: translate.NotAcceptable, Extra: element.New(nsPubSubErr, "payload-too-big")}
	}
	_, err := sql.Exec(`INSERT INTO xmpp_pep_items (account, node, item, seq, published, publisher, payload)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, node, item) DO UPDATE SET
		seq = excluded.seq, published = excluded.published, publisher = excluded.publisher, payload = excluded.payload`,
		account.String(), node, it.ID, int64(tx.NextFeed()), it.Published.UnixMilli(), it.Publisher, append([]byte{}, payload...))
	if err != nil {
		return err
	}
	_, err = sql.Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2 AND item NOT IN
		(SELECT item FROM xmpp_pep_items WHERE account = $1 AND node = $2 ORDER BY seq DESC LIMIT $3)`,
		account.String(), node, int64(c.MaxItems))
	return err
}

func deleteItem(tx *store.Tx, account core.Address, node, id string) (found bool, err error) {
	n, err := tx.Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2 AND item = $3`, account.String(), node, id)
	return n > 0, err
}

func deleteItems(tx *store.Tx, account core.Address, node string) error {
	_, err := tx.Exec(`DELETE FROM xmpp_pep_items WHERE account = $1 AND node = $2`, account.String(), node)
	return err
}

func deleteNode(tx *store.Tx, account core.Address, node string) error {
	if err := deleteItems(tx, account, node); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM xmpp_pep_nodes WHERE account = $1 AND node = $2`, account.String(), node)
	return err
}
