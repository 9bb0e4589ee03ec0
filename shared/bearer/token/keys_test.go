package token_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"ticketing.com/auth/shared/bearer/token"
)

// The key of RFC 8037 appendix A and its thumbprint.
const (
	rfcD   = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	rfcX   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfcKid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
)

func TestThumbprint_RFC8037(t *testing.T) {
	set, err := token.ParsePrivate([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `","x":"` + rfcX + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `","kid":"` + rfcKid + `","alg":"EdDSA","use":"sig"}]}`
	if got := string(set.Public().JWKS()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestJWKS_OrderAndMembers(t *testing.T) {
	in := `{"note":"x","keys":[
		{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `","ext":true,"key_ops":["verify"],"secret":"s"},
		` + strings.TrimSuffix(strings.TrimPrefix(string(document(t, false, key(1))), `{"keys":[`), `]}`) + `]}`
	set, err := token.ParsePublic([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + rfcX + `","kid":"` + rfcKid + `","alg":"EdDSA","use":"sig"},` +
		strings.TrimPrefix(string(document(t, false, key(1))), `{"keys":[`)
	got := set.JWKS()
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	got[0] = 'x'
	if again := set.JWKS(); string(again) != want {
		t.Errorf("after a change of the returned document: got %s, want %s", again, want)
	}
	if again, err := token.ParsePublic(set.JWKS()); err != nil || !bytes.Equal(again.JWKS(), set.JWKS()) {
		t.Errorf("ParsePublic of the document %s: got error %v, want the same document", set.JWKS(), err)
	}
}

func TestParse_InvalidKeySet(t *testing.T) {
	d, x, id := token.NewJWK(key(1)).D, token.NewJWK(key(1)).X, kid(key(1))
	second := object{"kty": "OKP", "crv": "Ed25519", "d": token.NewJWK(key(2)).D, "x": token.NewJWK(key(2)).X}
	otherX := token.NewJWK(key(2)).X
	private := object{"kty": "OKP", "crv": "Ed25519", "d": d, "x": x, "kid": id, "alg": "EdDSA", "use": "sig"}
	public := private.with(object{"d": nil})
	x25519 := public.with(object{"crv": "X25519"})
	rsa := object{"kty": "RSA", "n": "AQAB", "e": "AQAB"}
	oct := object{"kty": "oct", "k": d}
	ec := token.NewJWK(ecKey(1))
	ecPublic := object{"kty": "EC", "crv": "P-256", "x": ec.X, "y": ec.Y, "kid": ec.ID, "alg": "ES256", "use": "sig"}
	ecPrivate := ecPublic.with(object{"d": ec.D})
	order := b64.EncodeToString(elliptic.P256().Params().N.Bytes())
	keys := func(keys ...object) string {
		b, err := json.Marshal(object{"keys": keys}, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const both, onlyPrivate, onlyPublic = "both", "private", "public"
	for _, c := range []struct{ name, kind, set, want string }{
		{"an empty document", both, ``, "not well-formed JSON (byte 0)"},
		{"not JSON", both, "-----BEGIN PRIVATE KEY-----", "not well-formed JSON (byte 1)"},
		{"a truncated document", both, `{"keys":[`, "not well-formed JSON (byte 9)"},
		{"two documents", both, `{"keys":[]}{}`, "not well-formed JSON (byte 11)"},
		{"a duplicate name", both, `{"keys":[],"keys":[]}`, "not well-formed JSON (byte 11)"},
		{"a duplicate member of a key", both, `{"keys":[{"x":"a","x":"b"}]}`, "not well-formed JSON (byte 18)"},
		{"an array", both, `[]`, "not a JWK Set (byte 0)"},
		{"a string", both, `"` + d + `"`, "not a JWK Set (byte 0)"},
		{"a number for x", both, `{"keys":[{"x":12345}]}`, "not a JWK Set (byte 14)"},
		{"a number for d", both, `{"keys":[{"d":12345}]}`, "not a JWK Set (byte 14)"},
		{"null", both, `null`, "the set has no key"},
		{"no keys", both, `{}`, "the set has no key"},
		{"keys in another case", both, `{"Keys":[{}]}`, "the set has no key"},
		{"an empty set", both, `{"keys":[]}`, "the set has no key"},
		{"a key alone, without a set", both, strings.TrimSuffix(strings.TrimPrefix(keys(public), `{"keys":[`), `]}`), "the set has no key"},
		{"a null key", both, `{"keys":[null]}`, "key 1: kty is not OKP or EC"},
		{"an RSA key", both, keys(rsa), "key 1: kty is not OKP or EC"},
		{"a symmetric key", both, keys(oct), "key 1: kty is not OKP or EC"},
		{"kty missing", both, keys(public.with(object{"kty": nil})), "key 1: kty is not OKP or EC"},
		{"kty in another case", both, keys(public.with(object{"kty": "okp"})), "key 1: kty is not OKP or EC"},
		{"crv missing", both, keys(public.with(object{"crv": nil})), "key 1: crv is not Ed25519"},
		{"a key for key agreement", both, keys(x25519), "key 1: crv is not Ed25519"},
		{"alg of another algorithm", both, keys(public.with(object{"alg": "ES256"})), "key 1: alg is not EdDSA"},
		{"use of another kind", both, keys(public.with(object{"use": "enc"})), "key 1: use is not sig"},
		{"an EC key without y", both, keys(public.with(object{"kty": "EC", "crv": "P-256", "alg": "ES256"})), "key 1: y is not 32 bytes in base64url"},
		{"x missing", both, keys(public.with(object{"x": nil})), "key 1: x is not 32 bytes in base64url"},
		{"x too short", both, keys(public.with(object{"x": x[:40]})), "key 1: x is not 32 bytes in base64url"},
		{"x too long", both, keys(public.with(object{"x": x + "AAAA"})), "key 1: x is not 32 bytes in base64url"},
		{"x padded", both, keys(public.with(object{"x": x + "="})), "key 1: x is not 32 bytes in base64url"},
		{"x with a line break", both, keys(public.with(object{"x": x + "\n"})), "key 1: x is not 32 bytes in base64url"},
		{"x with spare bits", both, keys(public.with(object{"x": spare(t, x)})), "key 1: x is not 32 bytes in base64url"},
		{"kid that is not a thumbprint", both, keys(public.with(object{"kid": "2026-03"})), "key 1: kid is not the thumbprint of the key"},
		{"kid of another key", both, keys(public.with(object{"kid": kid(key(2))})), "key 1: kid is not the thumbprint of the key"},

		{"a key of another curve", both, keys(ecPublic.with(object{"crv": "P-384"})), "key 1: crv is not P-256"},
		{"the curve secp256k1", both, keys(ecPublic.with(object{"crv": "secp256k1"})), "key 1: crv is not P-256"},
		{"an EC key with alg EdDSA", both, keys(ecPublic.with(object{"alg": "EdDSA"})), "key 1: alg is not ES256"},
		{"a point that is not on the curve", both, keys(ecPublic.with(object{"y": x})), "key 1: x and y are not a point of P-256"},
		{"the kid of an Ed25519 key", both, keys(ecPublic.with(object{"kid": id})), "key 1: kid is not the thumbprint of the key"},
		{"d of another EC key", onlyPrivate, keys(ecPrivate.with(object{"d": token.NewJWK(ecKey(2)).D})), "key 1: d is the private key of another public key"},
		{"d is the order of the group", onlyPrivate, keys(ecPrivate.with(object{"d": order})), "key 1: d is not a private key over P-256"},
		{"an EC key twice", onlyPrivate, keys(ecPrivate, private, ecPrivate), "key 3: it is in the set twice"},

		{"a public key", onlyPrivate, keys(public), "key 1: it is public (it has no d) and the set is private"},
		{"x of another key", onlyPrivate, keys(private.with(object{"x": otherX, "kid": nil})), "key 1: d is the private key of another public key"},
		{"d too short", onlyPrivate, keys(private.with(object{"d": d[:40]})), "key 1: d is not 32 bytes in base64url"},
		{"d padded", onlyPrivate, keys(private.with(object{"d": d + "="})), "key 1: d is not 32 bytes in base64url"},
		{"d with spare bits", onlyPrivate, keys(private.with(object{"d": spare(t, d)})), "key 1: d is not 32 bytes in base64url"},
		{"a duplicate key", onlyPrivate, keys(private, private), "key 2: it is in the set twice"},
		{"an invalid second key", onlyPrivate, keys(private, rsa), "key 2: kty is not OKP or EC"},

		{"a private key", onlyPublic, keys(private), "key 1: it is private (it has d) and the set is public"},
		{"a private key among others", onlyPublic, keys(public, second), "key 2: it is private (it has d) and the set is public"},
		{"a private RSA key", onlyPublic, keys(rsa.with(object{"d": "AQAB"})), "key 1: it is private (it has d) and the set is public"},
		{"a duplicate public key", onlyPublic, keys(public, public.with(object{"kid": nil})), "key 2: it is in the set twice"},
		{"an invalid second public key", onlyPublic, keys(public, x25519), "key 2: crv is not Ed25519"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kind != onlyPublic {
				set, err := token.ParsePrivate([]byte(c.set))
				if set != nil || err == nil || err.Error() != c.want {
					t.Errorf("ParsePrivate: got error %v, want %q", err, c.want)
				}
			}
			if c.kind != onlyPrivate {
				set, err := token.ParsePublic([]byte(c.set))
				if set != nil || err == nil || err.Error() != c.want {
					t.Errorf("ParsePublic: got error %v, want %q", err, c.want)
				}
			}
		})
	}
}

// The set holds keys of both algorithms during a change of the algorithm.
func TestParse_BothAlgorithms(t *testing.T) {
	set, err := token.ParsePrivate(document(t, true, ecKey(1), key(1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(set.Public().Algorithms(), " "); got != "ES256 EdDSA" {
		t.Errorf("got the algorithms %s, want ES256 EdDSA", got)
	}
	if again, err := token.ParsePublic(set.Public().JWKS()); err != nil || !bytes.Equal(again.JWKS(), set.Public().JWKS()) {
		t.Errorf("got error %v, want the same set", err)
	}
	i := token.NewIssuer(set, "ticketing", "shop", "web", ttl)
	raw := issue(t, i, ann)
	if again := issue(t, i, ann); again != raw {
		t.Errorf("got %s, want the same token again, %s", again, raw)
	}
	accept(t, everyKey(t), raw)
}

func TestGenerateKey(t *testing.T) {
	for _, algorithm := range []string{token.EdDSA, token.ES256} {
		k, err := token.GenerateKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if got := token.NewJWK(k); got.Algorithm != algorithm || got.D == "" {
			t.Errorf("got a key for %s, want one for %s", got.Algorithm, algorithm)
		}
		if _, err := token.ParsePrivate(document(t, true, k)); err != nil {
			t.Errorf("%s: got error %v, want none", algorithm, err)
		}
	}
	if _, err := token.GenerateKey("RS256"); err == nil {
		t.Error("RS256: got no error, want one")
	}
}

func TestIssue_SignsWithFirstKey(t *testing.T) {
	raw := issue(t, issuer(t, key(2), key(1)), ann)
	if _, err := verifier(t, noon, key(2)).Verify(t.Context(), raw); err != nil {
		t.Errorf("with the first key: got error %v, want none", err)
	}
	refuse(t, verifier(t, noon, key(1)), raw)
}

func TestFormat_HidesPrivateKey(t *testing.T) {
	jwk := token.NewJWK(key(1))
	set, err := token.ParsePrivate(document(t, true, key(1)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("keys", "set", set, "jwk", jwk)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", set, jwk, token.Set{Keys: []token.JWK{jwk}})
	}
	seed := key(1).Seed()
	for _, secret := range []string{jwk.D, fmt.Sprintf("%x", seed), fmt.Sprint(seed), strings.Trim(fmt.Sprint(seed), "[]"), fmt.Sprintf("%x", jwk.D)} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the output contains a private key, want none:\n%s", out.String())
		}
	}
}

func TestNewJWK_RoundTrip(t *testing.T) {
	jwk := token.NewJWK(key(1))
	if jwk.ID != token.Thumbprint(key(1).Public().(ed25519.PublicKey)) || jwk.Public().D != "" || jwk.D == "" {
		t.Errorf("got id %q and private part %q of the public key; want the thumbprint and none", jwk.ID, jwk.Public().D)
	}
	if _, err := token.ParsePrivate(document(t, true, key(1), key(2))); err != nil {
		t.Errorf("ParsePrivate: got error %v, want none", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(document(f, true, key(1)))
	f.Add(document(f, false, key(1), key(2)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if set, err := token.ParsePublic(data); err == nil {
			if again, err := token.ParsePublic(set.JWKS()); err != nil || !bytes.Equal(again.JWKS(), set.JWKS()) {
				t.Errorf("ParsePublic(%s): got error %v, want the same set", set.JWKS(), err)
			}
		}
		if set, err := token.ParsePrivate(data); err == nil {
			if _, err := token.ParsePublic(set.Public().JWKS()); err != nil {
				t.Errorf("ParsePublic(%s): got error %v, want none", set.Public().JWKS(), err)
			}
		}
	})
}
