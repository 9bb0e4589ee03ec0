package ratelimit

import (
	"net/netip"
	"strings"
	"testing"

	"ticketing.com/auth/shared/endpoint"
)

func TestClient_TrustedProxies(t *testing.T) {
	t.Parallel()
	const peer = "192.0.2.1:40000"
	long := strings.Repeat("1.1.1.1, ", 3000)
	for _, c := range []struct {
		name      string
		hops      int
		peer      string
		forwarded []string
		want      string
	}{
		{"the peer, without trusted proxies", 0, peer, nil, "192.0.2.1"},
		{"the peer, with a header but no trusted proxy", 0, peer, []string{"1.1.1.1"}, "192.0.2.1"},
		{"a peer of IPv6", 0, "[2001:db8:1:2:3:4:5:6]:40000", nil, "2001:db8:1:2:3:4:5:6"},
		{"an IPv4-mapped peer", 0, "[::ffff:192.0.2.1]:40000", nil, "192.0.2.1"},
		{"a peer with a zone, without it", 0, "[fe80::1%eth0]:40000", nil, "fe80::1"},
		{"a peer without a port", 0, "192.0.2.1", nil, "192.0.2.1"},
		{"a peer that is no address", 0, "@", nil, "invalid IP"},
		{"no address at all", 1, "", nil, "invalid IP"},

		{"the entry of the one proxy", 1, peer, []string{"198.51.100.7"}, "198.51.100.7"},
		{"the entry of the one proxy, not the forged one", 1, peer, []string{"1.1.1.1, 198.51.100.7"}, "198.51.100.7"},
		{"the entry of the outer of two proxies", 2, peer, []string{"1.1.1.1, 198.51.100.7, 10.0.0.1"}, "198.51.100.7"},
		{"two headers are one list", 2, peer, []string{"1.1.1.1, 198.51.100.7", "10.0.0.1"}, "198.51.100.7"},
		{"a forged header before the proxy's", 1, peer, []string{"1.1.1.1", "198.51.100.7"}, "198.51.100.7"},
		{"a list of thousands", 1, peer, []string{long + "198.51.100.7"}, "198.51.100.7"},
		{"a list without spaces", 1, peer, []string{"1.1.1.1,198.51.100.7"}, "198.51.100.7"},
		{"empty entries do not count", 2, peer, []string{"198.51.100.7,, ,10.0.0.1,", "", ","}, "198.51.100.7"},

		{"an entry with a port", 1, peer, []string{"198.51.100.7:1234"}, "198.51.100.7"},
		{"an entry of IPv6", 1, peer, []string{"2001:db8::1"}, "2001:db8::1"},
		{"an entry of IPv6 in brackets", 1, peer, []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"an entry of IPv6 with a port", 1, peer, []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"an entry of IPv6 with a zone", 1, peer, []string{"fe80::1%eth0"}, "fe80::1"},
		{"an IPv4-mapped entry", 1, peer, []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"the same in hexadecimal", 1, peer, []string{"[::ffff:c633:6407]"}, "198.51.100.7"},

		{"the peer, if the list is too short", 3, peer, []string{"1.1.1.1, 10.0.0.1"}, "192.0.2.1"},
		{"the peer, without a list", 1, peer, nil, "192.0.2.1"},
		{"the peer, if the entry is no address", 1, peer, []string{"1.1.1.1, unknown"}, "192.0.2.1"},
		{"the peer, if the entry is quoted", 1, peer, []string{`"198.51.100.7"`}, "192.0.2.1"},
		{"the peer, if a bracket is missing", 1, peer, []string{"[2001:db8::1"}, "192.0.2.1"},
		{"the peer, if the entry has leading zeros", 1, peer, []string{"198.051.100.007"}, "192.0.2.1"},
		{"garbage to the left", 1, peer, []string{"\x00\xff<script>, ;;, 198.51.100.7"}, "198.51.100.7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &Limiter{addresses: true, Proxies: Proxies{hops: c.hops}}
			if got := l.client(endpoint.Client{Peer: c.peer, Forwarded: c.forwarded}); got.String() != c.want {
				t.Errorf("client %s, want %s", got, c.want)
			}
		})
	}
}

// A pod inside the cluster bypasses the first proxies and forges their entries.
func TestClient_ProxyNetworks(t *testing.T) {
	t.Parallel()
	const gateway, activator, pod = "10.1.0.1", "10.1.0.2", "10.2.0.9"
	for _, c := range []struct {
		name, networks, peer, forwarded, want string
	}{
		{"through all proxies", "10.1.0.0/24", "127.0.0.1:1", "198.51.100.7, " + gateway + ", " + activator, "198.51.100.7"},
		{"through all proxies, with a forged entry", "10.1.0.0/24", "127.0.0.1:1", "1.1.1.1, 198.51.100.7, " + gateway + ", " + activator, "198.51.100.7"},
		{"from a pod to the activator", "10.1.0.0/24", "127.0.0.1:1", "1.1.1.1, 2.2.2.2, " + pod + ", " + activator, pod},
		{"from a pod to the activator, with a forged gateway", "10.1.0.0/24", "127.0.0.1:1", "1.1.1.1, " + gateway + ", " + pod, pod},
		{"from a pod to the function", "10.1.0.0/24", pod + ":1", "1.1.1.1, " + gateway + ", " + activator, pod},
		{"networks of IPv6", "fd00:1::/64", "[fd00:1::2]:1", "1.1.1.1, fd00:2::9, fd00:1::1", "fd00:2::9"},
		{"a list that is too short", "10.1.0.0/24", "127.0.0.1:1", activator, "127.0.0.1"},
		{"without the setting, a pod writes its address", "", "127.0.0.1:1", "1.1.1.1, " + pod + ", " + activator, "1.1.1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limiter(t, "mongodb://127.0.0.1:1/", at(noon), "TRUSTED_PROXIES=3", "PROXY_NETWORKS="+c.networks)
			if got := l.client(endpoint.Client{Peer: c.peer, Forwarded: []string{c.forwarded}}); got.String() != c.want {
				t.Errorf("client %s, want %s", got, c.want)
			}
		})
	}
}

// A client cannot change the entries that the trusted proxies append to its own header.
func FuzzClient_ForgedHeader(f *testing.F) {
	for _, seed := range []string{"", "1.1.1.1", "1.1.1.1, 2.2.2.2", ",,,", "[::1", "::ffff:1.1.1.1", "unknown", strings.Repeat(",", 1000)} {
		f.Add(seed, seed, uint8(1))
	}
	f.Fuzz(func(t *testing.T, header, sameHeader string, n uint8) {
		hops := int(n%16) + 1
		l := &Proxies{hops: hops}
		trusted := "198.51.100.7" + strings.Repeat(", 10.0.0.1", hops-1)
		for _, forwarded := range [][]string{{header, trusted}, {header, sameHeader + ", " + trusted}, {sameHeader + "," + trusted}} {
			if got := l.client(endpoint.Client{Peer: "192.0.2.1:1", Forwarded: forwarded}); got != netip.MustParseAddr("198.51.100.7") {
				t.Errorf("client of %q is %s, want 198.51.100.7", forwarded, got)
			}
		}
		l.client(endpoint.Client{Peer: header, Forwarded: []string{sameHeader}}) // does not panic
	})
}
