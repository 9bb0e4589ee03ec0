package throttle

import (
	"net/netip"
	"strings"
	"testing"

	"ticketing.com/auth/shared/endpoint"
)

func TestWhomACallCountsFor(t *testing.T) {
	const peer = "192.0.2.1:40000"
	long := strings.Repeat("1.1.1.1, ", 3000)
	for _, c := range []struct {
		name      string
		hops      int
		peer      string
		forwarded []string
		want      string
	}{
		{"the peer, where no proxy is trusted", 0, peer, nil, "192.0.2.1"},
		{"the peer, whatever the header says", 0, peer, []string{"1.1.1.1"}, "192.0.2.1"},
		{"a peer of IPv6 by its /64", 0, "[2001:db8:1:2:3:4:5:6]:40000", nil, "2001:db8:1:2::/64"},
		{"a peer of IPv4 in the clothes of IPv6", 0, "[::ffff:192.0.2.1]:40000", nil, "192.0.2.1"},
		{"a peer with a zone, without it", 0, "[fe80::1%eth0]:40000", nil, "fe80::/64"},
		{"a peer without a port", 0, "192.0.2.1", nil, "192.0.2.1"},
		{"nobody knows whom", 0, "@", nil, "invalid IP"},
		{"nobody knows whom, of nothing", 1, "", nil, "invalid IP"},

		{"whom the one proxy saw", 1, peer, []string{"198.51.100.7"}, "198.51.100.7"},
		{"whom the one proxy saw, not who the caller says he is", 1, peer, []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"whom the farther of two proxies saw", 2, peer, []string{"1.1.1.1, 198.51.100.7, 10.0.0.1"}, "198.51.100.7"},
		{"two headers are one list", 2, peer, []string{"1.1.1.1, 198.51.100.7", "10.0.0.1"}, "198.51.100.7"},
		{"a header of the caller's before the proxy's", 1, peer, []string{"1.1.1.1", "198.51.100.7"}, "198.51.100.7"},
		{"a list of thousands", 1, peer, []string{long + "198.51.100.7"}, "198.51.100.7"},
		{"a list without spaces", 1, peer, []string{"1.1.1.1,198.51.100.7"}, "198.51.100.7"},
		{"empty entries are none", 2, peer, []string{"198.51.100.7,, ,10.0.0.1,", "", ","}, "198.51.100.7"},

		{"an entry with a port", 1, peer, []string{"198.51.100.7:1234"}, "198.51.100.7"},
		{"an entry of IPv6", 1, peer, []string{"2001:db8::1"}, "2001:db8::/64"},
		{"an entry of IPv6 in brackets", 1, peer, []string{"[2001:db8::1]"}, "2001:db8::/64"},
		{"an entry of IPv6 with a port", 1, peer, []string{"[2001:db8::1]:443"}, "2001:db8::/64"},
		{"an entry of IPv6 with a zone", 1, peer, []string{"fe80::1%eth0"}, "fe80::/64"},
		{"an entry of IPv4 in the clothes of IPv6", 1, peer, []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"the same in hexadecimal", 1, peer, []string{"[::ffff:c633:6407]"}, "198.51.100.7"},

		{"the peer, where the list is too short", 3, peer, []string{"1.1.1.1, 10.0.0.1"}, "192.0.2.1"},
		{"the peer, where there is no list", 1, peer, nil, "192.0.2.1"},
		{"the peer, where the entry is no address", 1, peer, []string{"1.1.1.1, unknown"}, "192.0.2.1"},
		{"the peer, where the entry is quoted", 1, peer, []string{`"198.51.100.7"`}, "192.0.2.1"},
		{"the peer, where the bracket is left open", 1, peer, []string{"[2001:db8::1"}, "192.0.2.1"},
		{"the peer, where the entry has leading zeros", 1, peer, []string{"198.051.100.007"}, "192.0.2.1"},
		{"garbage on the left is not looked at", 1, peer, []string{"\x00\xff<script>, ;;, 198.51.100.7"}, "198.51.100.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (&Throttle{hops: c.hops}).subject(endpoint.Caller{Peer: c.peer, Forwarded: c.forwarded}); got != c.want {
				t.Errorf("it is %s, want %s", got, c.want)
			}
		})
	}
}

// Whatever a caller writes, the trusted proxies write theirs to the right of it.
func FuzzNothingOnTheLeftChangesWhoItIs(f *testing.F) {
	for _, seed := range []string{"", "1.1.1.1", "1.1.1.1, 2.2.2.2", ",,,", "[::1", "::ffff:1.1.1.1", "unknown", strings.Repeat(",", 1000)} {
		f.Add(seed, seed, uint8(1))
	}
	f.Fuzz(func(t *testing.T, header, sameHeader string, n uint8) {
		hops := int(n%16) + 1
		trusted := "198.51.100.7" + strings.Repeat(", 10.0.0.1", hops-1)
		for _, forwarded := range [][]string{{header, trusted}, {header, sameHeader + ", " + trusted}, {sameHeader + "," + trusted}} {
			if got := client(endpoint.Caller{Peer: "192.0.2.1:1", Forwarded: forwarded}, hops); got != netip.MustParseAddr("198.51.100.7") {
				t.Errorf("%q makes it %s", forwarded, got)
			}
		}
		client(endpoint.Caller{Peer: header, Forwarded: []string{sameHeader}}, hops) // does not panic
	})
}
