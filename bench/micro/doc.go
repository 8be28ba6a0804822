// Package micro has benchmarks of the two things that every frame pays for: the
// refresh of a deadline, and taking a frame off a buffer. They compare
// heartwheel's own with what a user would write instead, without sockets.
//
//	go test -run '^$' -bench . -count 6 ./micro > bench.txt
//
// Timers are a million, spread over as many sessions of 128 bytes, and visited
// in no order that a cache would like. All four kinds are called through one
// interface, which is 2 ns of each figure.
package micro
