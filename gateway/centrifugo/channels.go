package centrifugo

// A subscription is a channel of a session.
type subscription struct {
	channel  string
	expireAt int64 // 0: never
	pending  bool  // the hub has it
	server   bool  // the server subscribed the client
	refresh  bool  // the client refreshes it
}

// channels are the subscriptions of a session. Most have a few, which are
// searched; from maxSearched on there is an index.
type channels struct {
	all   []subscription
	index map[string]int // nil for few
}

const maxSearched = 16

func (c *channels) len() int { return len(c.all) }

func (c *channels) at(channel string) int {
	if c.index != nil {
		if i, ok := c.index[channel]; ok {
			return i
		}
		return -1
	}
	for i := range c.all {
		if c.all[i].channel == channel {
			return i
		}
	}
	return -1
}

// find returns a subscription, which is valid until channels change.
func (c *channels) find(channel string) *subscription {
	if i := c.at(channel); i >= 0 {
		return &c.all[i]
	}
	return nil
}

// add adds a channel that is not there.
func (c *channels) add(sub subscription) {
	c.all = append(c.all, sub)
	switch n := len(c.all); {
	case c.index != nil:
		c.index[sub.channel] = n - 1
	case n > maxSearched:
		c.index = make(map[string]int, 2*n)
		for i := range c.all {
			c.index[c.all[i].channel] = i
		}
	}
}

// remove removes a channel if it is there.
func (c *channels) remove(channel string) {
	i := c.at(channel)
	if i < 0 {
		return
	}
	last := len(c.all) - 1
	c.all[i] = c.all[last]
	c.all[last] = subscription{}
	c.all = c.all[:last]
	if c.index != nil {
		if i < last {
			c.index[c.all[i].channel] = i
		}
		delete(c.index, channel)
	}
	if last == 0 {
		*c = channels{}
	}
}
