// Package netlab gives tests private networks whose cables can be pulled and
// whose NAT forgets: network namespaces joined by veth pairs. It needs Linux,
// root and the ip command; where something is missing or refused, the test that
// asks for a network is skipped with the reason.
//
// The namespaces have no names and nothing of them is seen by the machine. They
// live as long as the test, the processes and the sockets in them, and so are
// gone even if the test is killed.
//
// It imports nothing of this module.
package netlab
