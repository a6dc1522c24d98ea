package xenapi

import (
	"context"
	"errors"
)

// Client is a session with one pool.
type Client struct{ Services }

var errNotConnected = errors.New("not connected")

func invoke[T any](_ context.Context, _ *Client, method string, _ func(*scanner, *T) error, args ...any) (T, error) {
	var none T
	if _, err := encodeCall(method, args); err != nil {
		return none, err
	}
	return none, errNotConnected
}
