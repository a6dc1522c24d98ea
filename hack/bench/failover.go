package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/kubexen/kubexen/pkg/testkit"
	"github.com/kubexen/kubexen/pkg/testkit/controlplane"
	"github.com/kubexen/kubexen/pkg/xensim"
)

var failover = group{
	name:  "failover",
	about: "time until another replica acts when the one that leads is killed, and when it is asked to stop",
	run:   runFailover,
}

// waitingForTheLease is what a replica says that has come up, whether it gets the lease or not.
const waitingForTheLease = "ttempting to acquire leader lease"

func runFailover(ctx context.Context, r *report) error {
	o, err := startWorld(ctx, xensim.Options{})
	if err != nil {
		return err
	}
	defer o.stop()
	operator, err := buildProgram(ctx)
	if err != nil {
		return err
	}
	defer operator.remove()
	leader, err := o.startReplica(ctx, operator)
	if err != nil {
		return err
	}
	defer func() { leader.Kill() }()
	if err := o.wait(ctx, testkit.Pool(testkit.PoolName).Object(), ready); err != nil {
		return err
	}
	for _, end := range []struct {
		name, note string
		goal       float64
		signal     syscall.Signal
	}{
		{"failover.hard", "SIGKILL of the leading replica to the first XenAPI call of the other", 15, syscall.SIGKILL},
		{"failover.graceful", "SIGTERM, the same", 2, syscall.SIGTERM},
	} {
		next, err := o.startReplica(ctx, operator)
		if err != nil {
			return err
		}
		took, err := o.takeOver(ctx, leader, end.signal)
		leader.Kill()
		leader = next
		if err != nil {
			return err
		}
		r.add(row{Name: end.name, Value: took.Seconds(), Unit: "s", N: 1, goal: atMost(end.goal), Note: end.note})
	}
	return nil
}

// startReplica starts a manager and waits until it leads or waits for the lease.
func (o *operator) startReplica(ctx context.Context, operator *program) (*controlplane.Process, error) {
	replica, err := operator.start(o, "--leader-elect", "--namespace", testkit.SystemNamespace)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return replica, every(ctx, 20*time.Millisecond, func() error {
		log, err := os.ReadFile(operator.lastLog())
		if err == nil && !bytes.Contains(log, []byte(waitingForTheLease)) {
			err = errors.New("the replica has not come up")
		}
		return err
	})
}

// takeOver ends the leader and waits for the other's login.
func (o *operator) takeOver(ctx context.Context, leader *controlplane.Process, signal syscall.Signal) (time.Duration, error) {
	o.pool.ResetCalls()
	ended := time.Now()
	if err := syscall.Kill(leader.Pid(), signal); err != nil {
		return 0, err
	}
	at, err := o.waitMade(ctx, "session.login_with_password")
	return at.Sub(ended), err
}
