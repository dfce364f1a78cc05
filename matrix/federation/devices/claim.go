package devices

import (
	"context"
	"maps"
	"net/http"
	"sync"

	"parley/core"
	"parley/matrix/client"
)

// Claim implements [client.Others].
//
// spec: MX 1.19 SS §23
func (d *Devices) Claim(ctx context.Context, claimer core.Address, wanted client.Wanted) (map[core.Address]map[string]client.NamedKey, map[string]error) {
	servers := map[string][]client.Wanted{}
	room := map[string]int{}
	for who, devices := range wanted {
		s := who.Domain
		if parts := servers[s]; len(parts) == 0 || room[s]+len(devices) > claimsPerCall {
			servers[s], room[s] = append(parts, client.Wanted{}), 0
		}
		servers[s][len(servers[s])-1][who] = devices
		room[s] += len(devices)
	}
	var mu sync.Mutex
	out := map[core.Address]map[string]client.NamedKey{}
	failed := atOnce(ctx, d, servers, func(server string, parts []client.Wanted) error {
		for _, part := range parts {
			got, err := d.claimOf(ctx, claimer.Domain, server, part)
			if err != nil {
				return err
			}
			mu.Lock()
			maps.Copy(out, got)
			mu.Unlock()
		}
		return nil
	})
	return out, failed
}

func (d *Devices) claimOf(ctx context.Context, origin, server string, wanted client.Wanted) (map[core.Address]map[string]client.NamedKey, error) {
	body := map[string]map[string]string{}
	for who, devices := range wanted {
		body[d.userID(who)] = devices
	}
	raw, err := d.call(ctx, origin, server, http.MethodPost, "/_matrix/federation/v1/user/keys/claim",
		map[string]any{"one_time_keys": body}, claimAnswer)
	if err != nil {
		return nil, err
	}
	return readClaimed(raw, wanted, d.userID)
}
