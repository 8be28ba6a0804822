// Package centrifugo is Centrifugo's bidirectional client protocol, version 2, in
// JSON and Protobuf, as a state machine without I/O. The schema is that of module
// github.com/centrifugal/protocol; errors, disconnects and their order are those
// of Centrifugo 6.9.1. It imports nothing of this module.
package centrifugo
