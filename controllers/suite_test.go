package controllers_test

import (
	"io"
	"testing"

	"github.com/go-logr/logr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubexen/kubexen/pkg/testkit"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard()) // what is not logged through a manager is not of interest
	testkit.Main(m)
}

// jsonTo logs as the manager does by default, with all details.
func jsonTo(out io.Writer) *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(out), zapcore.DebugLevel))
}
