package centrifugo

import (
	"iter"

	"github.com/centrifugal/protocol"
)

// Subscribed reports whether the session is subscribed to a channel.
func (s *Session) Subscribed(channel string) bool {
	sub := s.channels.find(channel)
	return sub != nil && !sub.pending
}

// Channels yields the channels that the session is subscribed to. They must not
// change meanwhile.
func (s *Session) Channels() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range s.channels.all {
			if sub := &s.channels.all[i]; !sub.pending && !yield(sub.channel) {
				return
			}
		}
	}
}

// Message sends data that belongs to no channel.
func (s *Session) Message(data []byte) {
	if s.Connected() {
		s.push("", &protocol.Push{Message: &protocol.Message{Data: data}})
	}
}

// Subscribe subscribes the client to a channel in the server's name. It fails
// with ErrAlreadySubscribed or ErrLimitExceeded.
func (s *Session) Subscribe(now int64, channel string, sub *protocol.Subscribe, expireAt int64) error {
	switch {
	case !s.Connected():
		return DisconnectClosed
	case s.channels.find(channel) != nil:
		return ErrAlreadySubscribed
	case s.channels.len() >= s.p.limits.Channels:
		return ErrLimitExceeded
	case expireAt > 0 && expireAt <= now:
		return ErrExpired
	}
	s.channels.add(subscription{channel: channel, server: true, expireAt: expireAt})
	s.push(channel, &protocol.Push{Subscribe: sub})
	return nil
}

// Unsubscribe ends a subscription and tells the client why.
func (s *Session) Unsubscribe(channel string, why Unsubscribe) {
	if !s.Connected() || !s.Subscribed(channel) {
		return
	}
	s.channels.remove(channel)
	s.p.hub.Left(s, channel, why)
	s.push(channel, &protocol.Push{Unsubscribe: &protocol.Unsubscribe{Code: why.Code, Reason: why.Reason}})
}

// Insufficient says that publications of a channel have been lost: the client
// subscribes again and recovers them. Where the server subscribed it, it has to
// connect again.
func (s *Session) Insufficient(channel string) {
	sub := s.channels.find(channel)
	switch {
	case sub == nil || sub.pending:
	case sub.server:
		s.Close(DisconnectInsufficientState)
	default:
		s.Unsubscribe(channel, UnsubscribeInsufficient)
	}
}

// Refresh sets when the connection expires, in the server's name; 0: never. A
// time in the past ends it.
func (s *Session) Refresh(now, expireAt int64) {
	if !s.Connected() {
		return
	}
	expireAt = min(expireAt, now+maxTTL)
	if expireAt > 0 && expireAt <= now {
		s.Close(DisconnectExpired)
		return
	}
	s.expireAt = expireAt
	r := &protocol.Refresh{Expires: expireAt > 0}
	if r.Expires {
		r.Ttl = uint32(expireAt - now)
	}
	s.push("", &protocol.Push{Refresh: r})
}

// Expires returns when Expire has something to do, 0: never. It changes with
// every answer to connect, subscribe and refreshes.
func (s *Session) Expires() int64 {
	if !s.Connected() {
		return 0
	}
	next := s.deadline(s.expireAt, s.refresh)
	for i := range s.channels.all {
		sub := &s.channels.all[i]
		if at := s.deadline(sub.expireAt, true); at > 0 && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}

func (s *Session) deadline(expireAt int64, late bool) int64 {
	if expireAt > 0 && late {
		return expireAt + s.p.limits.ExpiredDelay
	}
	return expireAt
}

// Expire ends what has expired: the connection, or subscriptions.
func (s *Session) Expire(now int64) {
	if !s.Connected() {
		return
	}
	if at := s.deadline(s.expireAt, s.refresh); at > 0 && at <= now {
		s.Close(DisconnectExpired)
		return
	}
	var gone []string
	for i := range s.channels.all {
		sub := &s.channels.all[i]
		if at := s.deadline(sub.expireAt, true); at == 0 || at > now {
			continue
		}
		if sub.server {
			s.Close(DisconnectSubExpired)
			return
		}
		gone = append(gone, sub.channel)
	}
	for _, channel := range gone {
		s.Unsubscribe(channel, UnsubscribeExpired)
	}
}
