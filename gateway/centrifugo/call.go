package centrifugo

import (
	"errors"

	"github.com/centrifugal/protocol"
)

type op uint8

const (
	opConnect op = iota
	opRefresh
	opSubscribe
	opSubRefresh
	opPublish
	opPresence
	opPresenceStats
	opHistory
	opRPC
)

// A Call is a command that waits for the hub, which answers it once: with the
// method that fits, or with Fail. Loop only.
type Call struct {
	s       *Session
	id      uint32
	slot    uint8
	op      op
	channel string // of a subscription
}

// Session returns the session of the command.
func (c Call) Session() *Session { return c.s }

// take reports whether c still waits for an answer of this kind.
func (c Call) take(want op) bool {
	if c.op != want {
		panic("centrifugo: a command is answered as another")
	}
	s := c.s
	if s.phase == phaseClosed || s.calls&(1<<c.slot) == 0 {
		return false
	}
	s.calls &^= 1 << c.slot
	return true
}

// send answers the command, and lets the session go on.
func (c Call) send(r *protocol.Reply) {
	r.Id = c.id
	c.s.reply(r)
	c.s.resume()
}

// Fail answers with an *Error, or ends the connection with a Disconnect. Any
// other err is ErrInternal.
func (c Call) Fail(err error) {
	s := c.s
	if !c.take(c.op) {
		return
	}
	switch c.op {
	case opConnect:
		s.phase = phaseRefused
	case opSubscribe:
		s.channels.remove(c.channel)
	}
	var d Disconnect
	if errors.As(err, &d) {
		s.Close(d)
		return
	}
	e := ErrInternal
	errors.As(err, &e)
	c.send(&protocol.Reply{Error: e.proto()})
}

// An Expiry is until when a connection or a subscription holds.
type Expiry struct {
	At     int64 // in seconds since 1970; 0: it does not expire
	Client bool  // the client refreshes it with tokens
}

// maxTTL bounds what a client is told, in seconds: a year, as Centrifugo does.
const maxTTL = 365 * 24 * 3600

func (e Expiry) bounded(now int64) Expiry {
	e.At = min(e.At, now+maxTTL)
	return e
}

// Connected answers connect. The session fills in what expires, and keeps the
// subscriptions as the server's.
func (c Call) Connected(now int64, r *protocol.ConnectResult, e Expiry) bool {
	s := c.s
	e = e.bounded(now)
	switch {
	case len(r.Subs) > s.p.limits.Channels:
		c.Fail(DisconnectChannelLimit)
		return false
	case e.At > 0 && e.At < now:
		c.Fail(ErrExpired)
		return false
	case !c.take(opConnect):
		return false
	}
	s.client, s.phase, s.expireAt, s.refresh = r.Client, phaseConnected, e.At, e.Client
	if e.At > 0 && e.Client {
		r.Expires, r.Ttl = true, uint32(e.At-now)
	}
	for channel := range r.Subs {
		s.channels.add(subscription{channel: channel, server: true})
	}
	c.send(&protocol.Reply{Connect: r})
	return s.Connected()
}

// Refreshed answers refresh.
func (c Call) Refreshed(now, expireAt int64) {
	s := c.s
	r := &protocol.RefreshResult{Expires: expireAt > 0}
	expireAt = min(expireAt, now+maxTTL)
	if expireAt > 0 && expireAt <= now {
		c.Fail(ErrExpired)
		return
	}
	if !c.take(opRefresh) {
		return
	}
	if expireAt > 0 {
		r.Ttl = uint32(expireAt - now)
		s.expireAt = expireAt
	}
	c.send(&protocol.Reply{Refresh: r})
}

// Subscribed answers subscribe, and reports whether the session is subscribed
// now: if not, its connection has ended or e is in the past. Publications must
// follow it.
func (c Call) Subscribed(now int64, r *protocol.SubscribeResult, e Expiry) bool {
	s := c.s
	e = e.bounded(now)
	if e.At > 0 && e.At <= now {
		c.Fail(ErrExpired)
		return false
	}
	if !c.take(opSubscribe) {
		return false
	}
	if e.At > 0 && e.Client {
		r.Expires, r.Ttl = true, uint32(e.At-now)
	}
	sub := s.channels.find(c.channel)
	sub.pending, sub.expireAt, sub.refresh = false, e.At, e.Client
	c.send(&protocol.Reply{Subscribe: r})
	return s.Connected()
}

// SubRefreshed answers sub_refresh.
func (c Call) SubRefreshed(now, expireAt int64) {
	r := &protocol.SubRefreshResult{Expires: expireAt > 0}
	expireAt = min(expireAt, now+maxTTL)
	if expireAt > 0 && expireAt < now {
		c.Fail(ErrExpired)
		return
	}
	if !c.take(opSubRefresh) {
		return
	}
	if expireAt > 0 {
		r.Ttl = uint32(expireAt - now)
	}
	if sub := c.s.channels.find(c.channel); sub != nil && !sub.pending {
		sub.expireAt = expireAt
	}
	c.send(&protocol.Reply{SubRefresh: r})
}

// Published answers publish.
func (c Call) Published() {
	if c.take(opPublish) {
		c.send(c.s.p.published)
	}
}

// Presence answers presence with the clients by their ids.
func (c Call) Presence(clients map[string]*protocol.ClientInfo) {
	if clients == nil { // JSON clients expect {}, not null
		clients = map[string]*protocol.ClientInfo{}
	}
	if c.take(opPresence) {
		c.send(&protocol.Reply{Presence: &protocol.PresenceResult{Presence: clients}})
	}
}

// PresenceStats answers presence_stats.
func (c Call) PresenceStats(clients, users int) {
	if c.take(opPresenceStats) {
		r := &protocol.PresenceStatsResult{NumClients: uint32(clients), NumUsers: uint32(users)}
		c.send(&protocol.Reply{PresenceStats: r})
	}
}

// History answers history.
func (c Call) History(r *protocol.HistoryResult) {
	if r.Publications == nil { // JSON clients expect [], not null
		r.Publications = []*protocol.Publication{}
	}
	if c.take(opHistory) {
		c.send(&protocol.Reply{History: r})
	}
}

// Result answers rpc.
func (c Call) Result(data []byte) {
	if c.take(opRPC) {
		c.send(&protocol.Reply{Rpc: &protocol.RPCResult{Data: data}})
	}
}
