package bench

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

// cpuProfile takes a CPU profile of a running Parley, in pprof's format.
func (s *Site) cpuProfile(ctx context.Context, d time.Duration) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return s.Host().Dial(ctx, network, addr)
		},
	}}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", lab.MetricsAddr, max(int(d.Seconds()), 1))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProfile))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, data)
	}
	if err != nil {
		return nil, fmt.Errorf("bench: profile: %w", err)
	}
	return data, nil
}
