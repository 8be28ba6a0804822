package centrifugo

import (
	"math/bits"

	"github.com/centrifugal/protocol"
)

// Features of a subscription that a client may ask for in SubscribeRequest.Flag.
const (
	FlagChannelID         = 1 << 0 // a number in place of the name; the answer says whether it got one
	FlagRejectUnrecovered = 1 << 1 // error 112 rather than an answer without Recovered; the hub's to keep
)

// command acts on one command. Which field counts if several are set, and what
// ends the connection rather than being answered with an error, is Centrifugo's.
func (s *Session) command(now int64, cmd *protocol.Command) {
	switch {
	case s.phase == phaseNew && cmd.Connect == nil:
		s.Close(DisconnectBadRequest)
	case cmd.Id == 0 && cmd.Send == nil:
		if !s.pinged {
			s.Close(DisconnectBadRequest)
		}
		s.pinged = false
	case cmd.Connect != nil:
		s.connect(cmd)
	case cmd.Ping != nil:
		s.ping(cmd)
	case cmd.Subscribe != nil:
		s.subscribe(cmd.Id, cmd.Subscribe)
	case cmd.Unsubscribe != nil:
		s.unsubscribe(cmd.Id, cmd.Unsubscribe.Channel)
	case cmd.Publish != nil:
		s.publish(cmd.Id, cmd.Publish)
	case cmd.Presence != nil:
		if channel := cmd.Presence.Channel; s.named(cmd.Id, channel) {
			s.p.hub.Presence(s.call(cmd.Id, opPresence, ""), channel)
		}
	case cmd.PresenceStats != nil:
		if channel := cmd.PresenceStats.Channel; s.named(cmd.Id, channel) {
			s.p.hub.PresenceStats(s.call(cmd.Id, opPresenceStats, ""), channel)
		}
	case cmd.History != nil:
		s.history(cmd.Id, cmd.History)
	case cmd.Rpc != nil:
		if s.short(cmd.Id, cmd.Rpc.Method) {
			s.p.hub.RPC(s.call(cmd.Id, opRPC, ""), cmd.Rpc.Method, cmd.Rpc.Data)
		}
	case cmd.Send != nil:
		if err := s.p.hub.Send(s, cmd.Send.Data); err != nil {
			s.closeFor(err)
		}
	case cmd.Refresh != nil:
		s.refreshConnection(cmd.Id, cmd.Refresh.Token)
	case cmd.SubRefresh != nil:
		s.refreshSubscription(cmd.Id, cmd.SubRefresh)
	default:
		s.Close(DisconnectBadRequest)
	}
}

// named reports whether a command names a channel as it must, and otherwise
// answers it.
func (s *Session) named(id uint32, channel string) bool {
	switch {
	case channel == "":
		s.Close(DisconnectBadRequest)
		return false
	case len(channel) > s.p.limits.ChannelLength:
		s.fail(id, ErrBadRequest)
		return false
	}
	return true
}

// short reports whether texts are within their limit, and otherwise answers the
// command.
func (s *Session) short(id uint32, texts ...string) bool {
	for _, t := range texts {
		if len(t) > s.p.limits.TextLength {
			s.fail(id, ErrBadRequest)
			return false
		}
	}
	return true
}

// token does what short does, for a token.
func (s *Session) token(id uint32, token string) bool {
	if len(token) > s.p.limits.TokenLength {
		s.fail(id, ErrBadRequest)
		return false
	}
	return true
}

func (s *Session) connect(cmd *protocol.Command) {
	r := cmd.Connect
	switch {
	case s.phase != phaseNew:
		s.Close(DisconnectBadRequest)
		return
	case len(r.Subs) > s.p.limits.Channels:
		s.Close(DisconnectChannelLimit)
		return
	}
	s.phase = phaseRefused // unless all is well
	if !s.token(cmd.Id, r.Token) || !s.short(cmd.Id, r.Name, r.Version) {
		return
	}
	for channel, sub := range r.Subs {
		if len(channel) > s.p.limits.ChannelLength {
			s.fail(cmd.Id, ErrBadRequest)
			return
		}
		if sub != nil && !s.short(cmd.Id, sub.Epoch, sub.Delta) {
			return
		}
	}
	s.phase = phaseConnecting
	s.p.hub.Connect(s.call(cmd.Id, opConnect, ""), r)
}

// ping answers a command that Centrifugo has only in its schema: alone it is no
// command.
func (s *Session) ping(cmd *protocol.Command) {
	if cmd.Subscribe == nil && cmd.Unsubscribe == nil && cmd.Publish == nil && cmd.Presence == nil &&
		cmd.PresenceStats == nil && cmd.History == nil && cmd.Rpc == nil && cmd.Send == nil &&
		cmd.Refresh == nil && cmd.SubRefresh == nil {
		s.Close(DisconnectBadRequest)
		return
	}
	s.fail(cmd.Id, ErrNotAvailable)
}

func (s *Session) subscribe(id uint32, r *protocol.SubscribeRequest) {
	l := &s.p.limits
	if r.Channel == "" {
		s.Close(DisconnectBadRequest)
		return
	}
	if r.Type != 0 { // maps and shared polls
		s.fail(id, ErrNotAvailable)
		return
	}
	if r.Delta != "" && r.Delta != "fossil" {
		s.Close(DisconnectBadRequest)
		return
	}
	if !s.named(id, r.Channel) || !s.token(id, r.Token) || !s.short(id, r.Epoch) {
		return
	}
	switch {
	case s.channels.find(r.Channel) != nil:
		s.fail(id, ErrAlreadySubscribed)
	case s.channels.len() >= l.Channels:
		s.fail(id, ErrLimitExceeded)
	case r.Tf != nil, r.Flag&^(FlagChannelID|FlagRejectUnrecovered) != 0,
		r.Phase != 0, r.Cursor != "", r.Limit != 0, r.Asc:
		s.fail(id, ErrBadRequest)
	default:
		s.channels.add(subscription{channel: r.Channel, pending: true})
		s.p.hub.Subscribe(s.call(id, opSubscribe, r.Channel), r)
	}
}

func (s *Session) unsubscribe(id uint32, channel string) {
	if !s.named(id, channel) {
		return
	}
	if s.channels.find(channel) != nil {
		s.channels.remove(channel)
		s.p.hub.Left(s, channel, UnsubscribeClient)
	}
	s.reply(&protocol.Reply{Id: id, Unsubscribe: &protocol.UnsubscribeResult{}})
}

func (s *Session) publish(id uint32, r *protocol.PublishRequest) {
	if r.Type != 0 { // maps
		s.fail(id, ErrNotAvailable)
		return
	}
	if s.named(id, r.Channel) {
		s.p.hub.Publish(s.call(id, opPublish, ""), r.Channel, r.Data)
	}
}

func (s *Session) history(id uint32, r *protocol.HistoryRequest) {
	if !s.named(id, r.Channel) || r.Since != nil && !s.short(id, r.Since.Epoch) {
		return
	}
	s.p.hub.History(s.call(id, opHistory, ""), r)
}

func (s *Session) refreshConnection(id uint32, token string) {
	if token == "" || !s.refresh {
		s.Close(DisconnectBadRequest)
		return
	}
	if s.token(id, token) {
		s.p.hub.Refresh(s.call(id, opRefresh, ""), token)
	}
}

func (s *Session) refreshSubscription(id uint32, r *protocol.SubRefreshRequest) {
	if r.Channel == "" {
		s.Close(DisconnectBadRequest)
		return
	}
	sub := s.channels.find(r.Channel)
	switch {
	case sub == nil || sub.pending:
		s.fail(id, ErrPermissionDenied)
	case !sub.refresh:
		s.Close(DisconnectBadRequest)
	case r.Token == "", r.Type != 0, len(r.Track)+len(r.Untrack) > 0:
		s.fail(id, ErrBadRequest)
	case s.token(id, r.Token):
		s.p.hub.SubRefresh(s.call(id, opSubRefresh, sub.channel), sub.channel, r.Token)
	}
}

// call takes a slot, of which receiving keeps one free.
func (s *Session) call(id uint32, op op, channel string) Call {
	slot := uint8(bits.TrailingZeros64(^s.calls))
	s.calls |= 1 << slot
	return Call{s: s, id: id, slot: slot, op: op, channel: channel}
}
