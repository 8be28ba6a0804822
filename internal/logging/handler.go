package logging

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
)

// A Handler is a slog.Handler whose level and format can change while it is in
// use, with the attributes and groups that loggers have by then. Safe for
// concurrent use.
type Handler struct {
	text, json slog.Handler
	mode       *handlerMode // shared with the handlers derived from it
}

type handlerMode struct {
	level slog.LevelVar
	json  atomic.Bool
}

// NewHandler returns a Handler that writes text from level info on.
func NewHandler(w io.Writer) *Handler {
	return (&Handler{mode: new(handlerMode)}).To(w)
}

// To returns a Handler to w, without attributes, that changes as h does.
func (h *Handler) To(w io.Writer) *Handler {
	options := &slog.HandlerOptions{Level: &h.mode.level}
	return &Handler{slog.NewTextHandler(w, options), slog.NewJSONHandler(w, options), h.mode}
}

// Set changes the format, text or json, and the level: debug, info, warn or error.
func (h *Handler) Set(format, level string) {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // the setting takes no other words
	h.mode.level.Set(l)
	h.mode.json.Store(format == "json")
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.mode.level.Level() }

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if h.mode.json.Load() {
		return h.json.Handle(ctx, r)
	}
	return h.text.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.text.WithAttrs(attrs), h.json.WithAttrs(attrs), h.mode}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.text.WithGroup(name), h.json.WithGroup(name), h.mode}
}
