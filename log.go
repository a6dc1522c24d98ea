package main

import (
	"fmt"
	"io"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logFlags say how logs look. Secrets never reach a log: whoever holds one (the XenAPI client) blacks it out where an
// error or a log line is made, and what is logged here are names, reasons and such errors.
type logFlags struct {
	level  string
	format string
}

func (f *logFlags) register(set *pflag.FlagSet) {
	set.StringVar(&f.level, "log-level", "info", "debug, info or error")
	set.StringVar(&f.format, "log-format", "json", "json or console")
}

// logger returns the logger, and what writes out the last lines.
func (f *logFlags) logger(out io.Writer) (logr.Logger, func(), error) {
	level, err := zapcore.ParseLevel(f.level)
	if err != nil {
		return logr.Logger{}, nil, fmt.Errorf("--log-level: %w", err)
	}
	settings := zap.NewProductionEncoderConfig()
	settings.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	settings.EncodeDuration = zapcore.StringDurationEncoder
	var encoder zapcore.Encoder
	switch f.format {
	case "json":
		encoder = zapcore.NewJSONEncoder(settings)
	case "console":
		encoder = zapcore.NewConsoleEncoder(settings)
	default:
		return logr.Logger{}, nil, fmt.Errorf("--log-format: %q is neither json nor console", f.format)
	}
	logger := zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level), zap.AddCaller())
	return zapr.NewLogger(logger), func() { _ = logger.Sync() }, nil
}
