package meter

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"parley/interop/lab"
)

// maxProfile bounds a profile, in bytes.
const maxProfile = 64 << 20

// CPUProfile is what to ask [Profile] for to get a CPU profile of so long.
func CPUProfile(d time.Duration) string {
	return fmt.Sprintf("profile?seconds=%d", max(int(d.Seconds()), 1))
}

// Profile fetches what a Parley that runs on a host answers under /debug/pprof/.
func Profile(ctx context.Context, host *lab.Host, what string) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return host.Dial(ctx, network, addr)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+lab.MetricsAddr+"/debug/pprof/"+what, nil)
	if err != nil {
		return nil, fmt.Errorf("meter: profile: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("meter: profile: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProfile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, data)
	}
	if err != nil {
		return nil, fmt.Errorf("meter: profile: %w", err)
	}
	return data, nil
}
