package refusal

import (
	"errors"
	"testing"
	"time"

	"parley/hub"
	"parley/matrix/client"
	"parley/matrix/federation"
)

func TestOf(t *testing.T) {
	slow := client.Errorf(429, client.LimitExceeded, "wait")
	slow.RetryAfter = time.Minute
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{hub.Refuse(hub.Forbidden, "no"), 403, "M_FORBIDDEN"}, {hub.ErrNone, 404, "M_NOT_FOUND"}, {slow, 429, "M_LIMIT_EXCEEDED"},
	} {
		e, ok := errors.AsType[*federation.Error](Of(c.err))
		if !ok || e.Status != c.status || e.Errcode != c.code || c.status == 429 && e.RetryAfter != time.Minute {
			t.Errorf("%v: %+v", c.err, e)
		}
	}
	own := errors.New("the disk is full")
	if err := Of(own); err != own {
		t.Errorf("our own failure is told as %v", err)
	}
	if err := Of(nil); err != nil {
		t.Error(err)
	}
}
