package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"ticketing.com/auth/shared/bearer/token"
)

// The tests below change one detail of this token. If the verifier rejected the unchanged token,
// they would prove nothing.
func TestVerify_ValidToken(t *testing.T) {
	for name, c := range map[string]struct {
		claims object
		change func(*token.Claims) // of the expected claims
	}{
		"the claims of an issuer":         {validClaims(), func(*token.Claims) {}},
		"an array of audiences":           {validClaims().with(object{"aud": []string{"other", "shop"}}), func(*token.Claims) {}},
		"no client id":                    {validClaims().with(object{"client_id": nil}), func(c *token.Claims) { c.ClientID = "" }},
		"no time of authentication":       {validClaims().with(object{"auth_time": nil}), func(c *token.Claims) { c.AuthTime = time.Time{} }},
		"no methods and no level":         {validClaims().with(object{"amr": nil, "acr": nil}), func(c *token.Claims) { c.AMR, c.ACR = nil, "" }},
		"no roles and no email_verified":  {validClaims().with(object{"roles": nil, "email_verified": nil}), func(c *token.Claims) { c.Roles, c.EmailVerified = nil, false }},
		"an unknown claim":                {validClaims().with(object{"scope": "x"}), func(*token.Claims) {}},
		"dates with a fraction":           {validClaims().with(object{"iat": float64(noon.Unix()) + 0.5, "exp": float64(noon.Unix()) + 60.25}), func(c *token.Claims) { c.ExpiresAt = noon.Add(time.Minute) }},
		"an expiry in the year 9999":      {validClaims().with(object{"exp": 253402300799}), func(c *token.Claims) { c.ExpiresAt = time.Unix(253402300799, 0).UTC() }},
		"an issue 30 seconds ahead":       {validClaims().with(object{"iat": noon.Unix() + 30}), func(c *token.Claims) { c.IssuedAt = noon.Add(30 * time.Second) }},
		"a start of validity in the past": {validClaims().with(object{"nbf": noon.Unix() - 1}), func(*token.Claims) {}},
		"a millisecond before its expiry": {validClaims().with(object{"exp": float64(noon.Unix()) + 0.001}), func(c *token.Claims) { c.ExpiresAt = noon }},
	} {
		t.Run(name, func(t *testing.T) {
			want := ann
			c.change(&want)
			for alg, signed := range map[string]string{
				"EdDSA": sign(key(1), validHeader().segment(t), c.claims.segment(t)),
				"ES256": signES256(ecKey(1), validHeader().with(object{"alg": "ES256", "kid": kid(ecKey(1))}).segment(t), c.claims.segment(t)),
			} {
				if got := accept(t, everyKey(t), signed); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %+v, want %+v", alg, got, want)
				}
			}
		})
	}
}

// The algorithm belongs to the key, and the header only repeats it (RFC 8725 section 3.1).
func TestVerify_ES256(t *testing.T) {
	v, body := everyKey(t), validClaims().segment(t)
	head := func(alg string, k crypto.Signer) string {
		return validHeader().with(object{"alg": alg, "kid": kid(k)}).segment(t)
	}
	good := signES256(ecKey(1), head("ES256", ecKey(1)), body)
	accept(t, v, good)
	in := good[:strings.LastIndexByte(good, '.')]
	signature := decode(t, good[len(in)+1:])
	digest := sha256.Sum256([]byte(in))
	der, err := ecdsa.SignASN1(rand.Reader, ecKey(1), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N.Bytes()
	for name, raw := range map[string]string{
		"a key of Ed25519 under alg ES256":   sign(key(1), head("ES256", key(1)), body),
		"a key of P-256 under alg EdDSA":     signES256(ecKey(1), head("EdDSA", ecKey(1)), body),
		"P-256 signs for a key of Ed25519":   signES256(ecKey(1), head("ES256", key(1)), body),
		"Ed25519 signs for a key of P-256":   sign(key(1), head("EdDSA", ecKey(1)), body),
		"Ed25519 signs under alg ES256":      sign(key(1), head("ES256", ecKey(1)), body),
		"an attacker's key of P-256":         signES256(ecKey(2), head("ES256", ecKey(1)), body),
		"an unknown key of P-256":            signES256(ecKey(2), head("ES256", ecKey(2)), body),
		"ES384 with the key of P-256":        signES256(ecKey(1), head("ES384", ecKey(1)), body),
		"ES256K with the key of P-256":       signES256(ecKey(1), head("ES256K", ecKey(1)), body),
		"a signature in ASN.1":               in + "." + b64.EncodeToString(der),
		"r and s are zero (CVE-2022-21449)":  in + "." + b64.EncodeToString(make([]byte, 64)),
		"r and s are the order of the group": in + "." + b64.EncodeToString(slices.Concat(n, n)),
		"r is zero":                          in + "." + b64.EncodeToString(append(make([]byte, 32), signature[32:]...)),
		"s is zero":                          in + "." + b64.EncodeToString(append(slices.Clone(signature[:32]), make([]byte, 32)...)),
		"r and s are exchanged":              in + "." + b64.EncodeToString(slices.Concat(signature[32:], signature[:32])),
		"63 bytes of ES256":                  in + "." + b64.EncodeToString(signature[:63]),
		"65 bytes of ES256":                  in + "." + b64.EncodeToString(append([]byte{0}, signature...)),
		"no signature of ES256":              in + ".",
		"other claims":                       head("ES256", ecKey(1)) + "." + validClaims().with(object{"sub": "bob"}).segment(t) + good[len(in):],
	} {
		t.Run(name, func(t *testing.T) { refuse(t, v, raw) })
	}
}

// signES256 signs as RFC 7518 section 3.4 says.
func signES256(k *ecdsa.PrivateKey, head, body string) string {
	signature, err := jwt.SigningMethodES256.Sign(head+"."+body, k)
	if err != nil {
		panic(err)
	}
	return head + "." + body + "." + b64.EncodeToString(signature)
}

func TestVerify_WrongAlgorithm(t *testing.T) {
	v := everyKey(t)
	body := validClaims().segment(t)
	head := func(alg any) string { return validHeader().with(object{"alg": alg}).segment(t) }

	for _, alg := range []string{"none", "None", "NONE", "nOnE", "none ", "", "null", "eddsa", "EDDSA", "Ed25519", "Ed448", "HS256", "ES256", "RS256", "PS256", "unregistered"} {
		t.Run("alg is "+alg, func(t *testing.T) {
			in := head(alg) + "." + body
			refuse(t, v, in+".")
			refuse(t, v, in)
			refuse(t, v, in+"."+b64.EncodeToString(make([]byte, 64)))
			refuse(t, v, sign(key(1), head(alg), body))
		})
	}
	for name, alg := range map[string]any{"missing": nil, "a number": 1, "an array": []string{"EdDSA"}, "an object": object{}, "true": true} {
		t.Run("alg is "+name, func(t *testing.T) { refuse(t, v, sign(key(1), head(alg), body)) })
	}

	// If the verifier accepted an HMAC with the public key as the secret, every client could
	// sign tokens.
	public := key(1).Public().(ed25519.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	for name, secret := range map[string][]byte{
		"raw":                       public,
		"base64url":                 []byte(b64.EncodeToString(public)),
		"DER":                       spki,
		"PEM":                       block,
		"PEM without its last line": block[:len(block)-1],
		"a JWK Set":                 document(t, false, key(1)),
		"the published JWK Set":     document(t, false, key(1), key(2)),
		"no byte":                   {},
	} {
		for _, method := range []*jwt.SigningMethodHMAC{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
			t.Run(method.Alg()+" with the public key as the secret: "+name, func(t *testing.T) {
				refuse(t, v, signWith(t, method, secret, head(method.Alg()), body))
			})
		}
	}

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
	}{{jwt.SigningMethodRS256, rsaKey}, {jwt.SigningMethodPS256, rsaKey}, {jwt.SigningMethodES256, ecKey}} {
		for _, alg := range []string{c.method.Alg(), "EdDSA"} {
			t.Run(c.method.Alg()+" with a key of its own under alg "+alg, func(t *testing.T) {
				refuse(t, v, signWith(t, c.method, c.key, head(alg), body))
			})
		}
	}
}

func signWith(t *testing.T, method jwt.SigningMethod, key any, head, body string) string {
	t.Helper()
	signature, err := method.Sign(head+"."+body, key)
	if err != nil {
		t.Fatal(err)
	}
	return head + "." + body + "." + b64.EncodeToString(signature)
}

// The signatures are valid. Only the header is wrong.
func TestVerify_WrongHeader(t *testing.T) {
	v := everyKey(t)
	attacker := token.NewJWK(key(3)).Public()
	for _, c := range []struct {
		name   string
		change object
	}{
		{"kid is missing", object{"kid": nil}},
		{"kid is empty", object{"kid": ""}},
		{"kid is a number", object{"kid": 1}},
		{"kid is an array", object{"kid": []string{kid(key(1))}}},
		{"kid is an object", object{"kid": object{"kid": kid(key(1))}}},
		{"kid is true", object{"kid": true}},
		{"kid is unknown", object{"kid": kid(key(3))}},
		{"kid names the other key", object{"kid": kid(key(2))}},
		{"kid is in upper case", object{"kid": strings.ToUpper(kid(key(1)))}},
		{"kid is padded", object{"kid": kid(key(1)) + "="}},
		{"kid ends with a space", object{"kid": kid(key(1)) + " "}},
		{"kid ends with a NUL", object{"kid": kid(key(1)) + "\x00"}},
		{"kid is a path", object{"kid": "../../../../etc/passwd"}},
		{"kid is /dev/null", object{"kid": "/dev/null"}},
		{"kid is SQL", object{"kid": "x' UNION SELECT 'secret'; --"}},
		{"kid is a query", object{"kid": object{"$ne": ""}}},
		{"kid is a URL", object{"kid": "https://attacker.example/key"}},

		{"jku is present", object{"jku": "https://attacker.example/jwks.json"}},
		{"jku names the published set", object{"jku": "/.well-known/jwks.json"}},
		{"x5u is present", object{"x5u": "https://attacker.example/chain.pem"}},
		{"x5c is present", object{"x5c": []string{"MIIB"}}},
		{"x5t is present", object{"x5t": "dGh1bWI"}},
		{"jwk is present", object{"jwk": object{"kty": attacker.KeyType, "crv": attacker.Curve, "x": attacker.X}}},
		{"crit names exp", object{"crit": []string{"exp"}}},
		{"crit is empty", object{"crit": []string{}}},
		{"crit names b64", object{"crit": []string{"b64"}, "b64": false}},
		{"b64 is false", object{"b64": false}},
		{"b64 is true", object{"b64": true}},
		{"zip is present", object{"zip": "DEF"}},
		{"enc is present", object{"enc": "A256GCM"}},
		{"cty declares a nested token", object{"cty": "JWT"}},
		{"alg is also present in upper case", object{"ALG": "EdDSA"}},

		{"typ is missing", object{"typ": nil}},
		{"typ is empty", object{"typ": ""}},
		{"typ is JWT", object{"typ": "JWT"}},
		{"typ is application/at+jwt", object{"typ": "application/at+jwt"}},
		{"typ is in upper case", object{"typ": "AT+JWT"}},
		{"typ is an array", object{"typ": []string{"at+jwt"}}},
		{"typ is a number", object{"typ": 1}},
		{"typ ends with a space", object{"typ": "at+jwt "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refuse(t, v, sign(key(1), validHeader().with(c.change).segment(t), validClaims().segment(t)))
		})
	}

	ours := `"typ":"at+jwt","kid":"` + kid(key(1)) + `"`
	for name, head := range map[string]string{
		"alg is duplicated":               `{"alg":"none","alg":"EdDSA",` + ours + `}`,
		"kid is duplicated":               `{"alg":"EdDSA","kid":"x",` + ours + `}`,
		"typ is duplicated":               `{"alg":"EdDSA","typ":"JWT",` + ours + `}`,
		"alg is null":                     `{"alg":null,` + ours + `}`,
		"kid is null":                     `{"alg":"EdDSA","typ":"at+jwt","kid":null}`,
		"crit is null":                    `{"alg":"EdDSA","crit":null,` + ours + `}`,
		"names are in upper case":         `{"ALG":"EdDSA","TYP":"at+jwt","KID":"` + kid(key(1)) + `"}`,
		"data follows the header":         `{"alg":"EdDSA",` + ours + `}{}`,
		"the header starts with a BOM":    "\ufeff" + `{"alg":"EdDSA",` + ours + `}`,
		"the header has invalid UTF-8":    `{"alg":"EdDSA","x` + "\xff" + `":1,` + ours + `}`,
		"the header is an array":          `[{"alg":"EdDSA",` + ours + `}]`,
		"the header is a string":          `"EdDSA"`,
		"the header is null":              `null`,
		"the header is empty":             ``,
		"the header is truncated":         `{"alg":"EdDSA",` + ours,
		"the header is not JSON":          `alg=EdDSA`,
		"2,000 nested arrays":             strings.Repeat("[", 2000),
		"a member of 2,000 nested arrays": `{"alg":"EdDSA",` + ours + `,"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, v, sign(key(1), b64.EncodeToString([]byte(head)), validClaims().segment(t)))
		})
	}
}

// The signatures and the headers are valid. Only the claims are wrong.
func TestVerify_WrongClaims(t *testing.T) {
	v := everyKey(t)
	texts := []string{"iss", "sub", "sid", "jti", "email"}
	dates := []string{"iat", "exp"}
	wrong := map[string]any{
		"missing": nil, "empty": "", "true": true, "an object": object{}, "an empty array": []any{}, "an array of null": []any{nil},
	}
	with := func(more map[string]any) map[string]any { return object(wrong).with(more) }
	for name, values := range map[string]map[string]any{
		strings.Join(texts, " "): with(map[string]any{"a number": 1, "zero": 0, "an array of a valid one": []string{"ticketing"}}),
		strings.Join(dates, " "): with(map[string]any{"a string": "1772366400", "zero": 0, "negative": -1, "after the year 9999": 253402300800, "1e300": 1e300}),
		"aud":                    with(map[string]any{"a number": 1, "another": "other", "others": []string{"a", "b"}, "a longer one": "shop2", "a shorter one": "sho", "an array of arrays": [][]string{{"shop"}}, "a mixed array": []any{"shop", 1}, "in upper case": "SHOP"}),
		"iss":                    {"another": "other", "in upper case": "TICKETING", "a longer one": "ticketing.com"},
		"exp":                    {"now": noon.Unix(), "a second ago": noon.Unix() - 1, "a second after 1970": 1},
		"iat":                    {"31 seconds ahead": noon.Unix() + 31, "a year ahead": noon.AddDate(1, 0, 0).Unix(), "31 seconds ahead in a fraction": float64(noon.Unix()) + 30.5},
	} {
		for claim := range strings.FieldsSeq(name) {
			for problem, value := range values {
				t.Run(claim+" is "+problem, func(t *testing.T) {
					refuse(t, v, sign(key(1), validHeader().segment(t), validClaims().with(object{claim: value}).segment(t)))
				})
			}
		}
	}

	body, err := b64.DecodeString(validClaims().segment(t))
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.Trim(string(body), "{}")
	for name, body := range map[string]string{
		"a claim is duplicated":          `{"sub":"admin",` + ours + `}`,
		"an unknown claim is duplicated": `{"x":1,"x":2,` + ours + `}`,
		"a claim is null":                `{` + strings.Replace(ours, `"5e5510f10"`, `null`, 1) + `}`,
		"the audience is null":           `{` + strings.Replace(ours, `"shop"`, `null`, 1) + `}`,
		"the expiry is null":             `{` + strings.Replace(ours, `"exp":`, `"exp":null,"x":`, 1) + `}`,
		"the expiry is 1e999":            `{` + strings.Replace(ours, `"exp":`, `"exp":1e999,"x":`, 1) + `}`,
		"names are in upper case":        `{` + strings.NewReplacer("sub", "SUB", "sid", "SID").Replace(ours) + `}`,
		"there is invalid UTF-8":         `{` + strings.Replace(ours, "ann", "an\xff", 1) + `}`,
		"there is a lone surrogate":      `{` + strings.Replace(ours, "ann", `\ud800`, 1) + `}`,
		"data follows the claims":        `{` + ours + `}x`,
		"the claims start with a BOM":    "\ufeff" + `{` + ours + `}`,
		"the claims are an array":        `[{` + ours + `}]`,
		"the claims are null":            `null`,
		"the claims are empty":           ``,
		"the claims are a token":         issue(t, issuer(t, key(1)), ann),
		"the claims are a token in JSON": `"` + issue(t, issuer(t, key(1)), ann) + `"`,
		"2,000 nested arrays":            strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, v, sign(key(1), validHeader().segment(t), b64.EncodeToString([]byte(body))))
		})
	}
}

func TestVerify_WrongSignature(t *testing.T) {
	v := everyKey(t)
	raw := issue(t, issuer(t, key(1)), ann)
	head, body, signature := split(t, raw)
	in := head + "." + body
	other := issue(t, issuer(t, key(1)), token.Claims{Subject: "2", Session: "2", ID: "2", Email: "bob@example.com", IssuedAt: noon})
	_, otherBody, otherSignature := split(t, other)

	for name, s := range map[string][]byte{
		"an attacker's key":        ed25519.Sign(key(3), []byte(in)),
		"the other key of the set": ed25519.Sign(key(2), []byte(in)),
		"no byte":                  {},
		"zeros":                    make([]byte, 64),
		"63 bytes":                 signature[:63],
		"65 bytes":                 append(slices.Clone(signature), 0),
		"the signature twice":      append(slices.Clone(signature), signature...),
		"of another token":         otherSignature,
		"of the claims alone":      ed25519.Sign(key(1), []byte(body)),
		"of the decoded parts":     ed25519.Sign(key(1), append(decode(t, head), decode(t, body)...)),
		"prehashed (Ed25519ph)":    prehashed(t, in),
		"a flipped bit in R":       flip(signature, 0),
		"a flipped bit in S":       flip(signature, 40),
		// RFC 8032 section 5.1.7: S must be below L. Otherwise a signature has several encodings.
		"S + L":                       plusL(t, signature),
		"a point of order 1, S = 0":   append(append([]byte{1}, make([]byte, 31)...), make([]byte, 32)...),
		"a point of order 4, S = 0":   make([]byte, 64),
		"a point that does not exist": append(slices.Repeat([]byte{0xff}, 32), signature[32:]...),
	} {
		t.Run(name, func(t *testing.T) { refuse(t, v, in+"."+b64.EncodeToString(s)) })
	}
	t.Run("on other claims", func(t *testing.T) {
		refuse(t, v, head+"."+otherBody+"."+b64.EncodeToString(signature))
	})
	t.Run("on another header", func(t *testing.T) {
		refuse(t, v, validHeader().with(object{"kid": kid(key(2))}).segment(t)+"."+body+"."+b64.EncodeToString(signature))
	})
}

func TestVerify_OneEncodingPerToken(t *testing.T) {
	v := everyKey(t)
	raw := issue(t, issuer(t, key(1)), ann)
	head, body, signature := split(t, raw)
	last := strings.LastIndexByte(raw, '.')

	// 64 bytes take 85⅓ characters: the last character has four unused bits.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	variants := 0
	for _, c := range alphabet {
		s := raw[:len(raw)-1] + string(c)
		if b, err := b64.DecodeString(s[last+1:]); err != nil || string(b) != string(signature) || s == raw {
			continue
		}
		variants++
		t.Run("the last character as "+string(c), func(t *testing.T) { refuse(t, v, s) })
	}
	if variants != 15 {
		t.Errorf("got %d other encodings of the signature, want 15", variants)
	}

	for name, s := range map[string]string{
		"an empty string":                 "",
		"a dot":                           ".",
		"two dots":                        "..",
		"three dots":                      "...",
		"one part":                        head,
		"two parts":                       head + "." + body,
		"two parts and a dot":             head + "." + body + ".",
		"four parts":                      raw + ".x",
		"a trailing dot":                  raw + ".",
		"a leading dot":                   "." + raw,
		"five parts, as JWE has":          raw + ".x.x",
		"100,000 dots":                    strings.Repeat(".", 100_000),
		"100,000 trailing dots":           raw + strings.Repeat(".", 100_000),
		"8 KiB of dots":                   strings.Repeat(".", token.MaxLength),
		"trailing padding":                raw + "==",
		"padding in the header":           head + "==." + raw[len(head)+1:],
		"a trailing line break":           raw + "\n",
		"a leading line break":            "\r\n" + raw,
		"a line break inside":             raw[:20] + "\n" + raw[20:],
		"a carriage return inside":        raw[:last+9] + "\r" + raw[last+9:],
		"a trailing space":                raw + " ",
		"a leading space":                 " " + raw,
		"a tab inside":                    raw[:20] + "\t" + raw[20:],
		"a trailing NUL":                  raw + "\x00",
		"the scheme as a prefix":          "Bearer " + raw,
		"quotes":                          `"` + raw + `"`,
		"a leading byte order mark":       "\ufeff" + raw,
		"the other base64 alphabet":       sign(key(1), head, standard(t, validClaims().with(object{"pad": "ÿÿÿ~~~???>>>"}).segment(t))),
		"upper case":                      strings.ToUpper(raw),
		"the JSON serialization":          `{"protected":"` + head + `","payload":"` + body + `","signature":"` + raw[last+1:] + `"}`,
		"a signed header with spare bits": sign(key(1), spare(t, head), body),
		"signed claims with spare bits":   sign(key(1), head, spare(t, validClaims().with(object{"pad": "x"}).segment(t))),
		"a signed header with padding":    sign(key(1), head+strings.Repeat("=", 4-len(head)%4), body),
		"signed claims with a line break": sign(key(1), head, body[:8]+"\n"+body[8:]),
		"8 KiB and a byte":                sized(t, token.MaxLength+1),
		"a mebibyte":                      sized(t, 1<<20),
	} {
		t.Run(name, func(t *testing.T) { refuse(t, v, s) })
	}
	t.Run("8 KiB are accepted", func(t *testing.T) {
		accept(t, v, sized(t, token.MaxLength))
	})
}

// An attacker must not make the verifier allocate much memory. A token over the limit costs no
// allocation, and any other token a bounded number.
func TestVerify_Allocations(t *testing.T) {
	v := verifier(t, noon, key(1))
	dots := strings.Repeat(".", 100_000)
	if n := testing.AllocsPerRun(10, func() { v.Verify(t.Context(), dots) }); n != 0 {
		t.Errorf("got %v allocations for 100,000 dots, want 0", n)
	}
	dots = dots[:token.MaxLength]
	if n := testing.AllocsPerRun(10, func() { v.Verify(t.Context(), dots) }); n > 20 {
		t.Errorf("got %v allocations for 8 KiB of dots, want at most 20", n)
	}
}

func split(t *testing.T, raw string) (head, body string, signature []byte) {
	t.Helper()
	parts := strings.Split(raw, ".")
	return parts[0], parts[1], decode(t, parts[2])
}

func decode(t *testing.T, segment string) []byte {
	t.Helper()
	b, err := b64.DecodeString(segment)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(signature []byte, i int) []byte {
	s := slices.Clone(signature)
	s[i] ^= 1
	return s
}

// plusL adds the order of the base point (RFC 8032 section 5.1) to S. The verification equation
// also holds for the sum.
func plusL(t *testing.T, signature []byte) []byte {
	t.Helper()
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(signature)
	slices.Reverse(s[32:])
	n := new(big.Int).Add(new(big.Int).SetBytes(s[32:]), l)
	n.FillBytes(s[32:])
	slices.Reverse(s[32:])
	return s
}

func prehashed(t *testing.T, in string) []byte {
	t.Helper()
	sum := sha512.Sum512([]byte(in))
	s, err := key(1).Sign(nil, sum[:], &ed25519.Options{Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// spare returns the segment with an unused bit of its last character set. It fails the test if
// there are no unused bits.
func spare(t *testing.T, segment string) string {
	t.Helper()
	want := decode(t, segment)
	for _, c := range "BCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		s := segment[:len(segment)-1] + string(c)
		if b, err := b64.DecodeString(s); err == nil && s != segment && string(b) == string(want) {
			return s
		}
	}
	t.Fatalf("no spare bits in %d characters", len(segment))
	return ""
}

// standard returns the segment in the alphabet of RFC 4648 section 4. It fails the test if no
// character differs.
func standard(t *testing.T, segment string) string {
	t.Helper()
	s := strings.NewReplacer("-", "+", "_", "/").Replace(segment)
	if s == segment {
		t.Fatal("no character differs")
	}
	return s
}

// sized returns an authentic token of n bytes.
func sized(t *testing.T, n int) string {
	t.Helper()
	padded := func(pad int) string {
		return sign(key(1), validHeader().segment(t), validClaims().with(object{"pad": strings.Repeat("x", pad)}).segment(t))
	}
	// Each three bytes take four characters.
	for pad := (n-len(padded(0)))/4*3 - 3; ; pad++ {
		if raw := padded(pad); len(raw) == n {
			return raw
		} else if len(raw) > n {
			t.Fatalf("no token of %d bytes", n)
		}
	}
}

// A cached token passes the same checks as a new one, except the check of the signature.
func TestVerify_Cache(t *testing.T) {
	now := noon
	keys := source{}
	v := token.NewVerifier(&keys, "ticketing", "shop", func() time.Time { return now }, 8)
	keys.set(t, key(1), key(2))
	raw := issue(t, issuer(t, key(1)), ann)
	verified := func() {
		t.Helper()
		for range 2 {
			c := accept(t, v, raw)
			if !reflect.DeepEqual(c, ann) {
				t.Errorf("got %+v, want %+v", c, ann)
			}
			c.Roles[0], c.AMR[0] = "admin", "otp" // must not change the cached claims
		}
	}
	verified()
	now = now.Add(ttl)
	refuse(t, v, raw)
	if _, err := v.VerifyExpired(t.Context(), raw); err != nil {
		t.Errorf("VerifyExpired: got error %v, want none", err)
	}
	now = noon.Add(-31 * time.Second)
	refuse(t, v, raw)
	now = noon
	keys.set(t, key(2))
	refuse(t, v, raw)
	keys.err = errors.New("the keys are not reachable")
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, keys.err) || errors.Is(err, token.ErrInvalid) {
		t.Errorf("without keys: got error %v, want %v", err, keys.err)
	}
	keys.err = nil
	keys.set(t, key(1))
	verified()
	for n := range 100 { // the cache is bounded, and a token in use stays in it
		c := ann
		c.ID = fmt.Sprint(n)
		accept(t, v, issue(t, issuer(t, key(1)), c))
		verified()
	}
	flipped := []byte(raw)
	flipped[len(raw)-10] ^= 1
	refuse(t, v, string(flipped))
}

func TestVerify_KeySourceError(t *testing.T) {
	keys := source{err: errors.New("the keys are not reachable")}
	v := token.NewVerifier(&keys, "ticketing", "shop", func() time.Time { return noon }, 0)
	_, err := v.Verify(t.Context(), issue(t, issuer(t, key(1)), ann))
	if !errors.Is(err, keys.err) || errors.Is(err, token.ErrInvalid) {
		t.Errorf("got error %v, want %v and not ErrInvalid", err, keys.err)
	}
}

// A source is a KeySource with keys that change.
type source struct {
	keys *token.VerifyingKeys
	err  error
}

func (s *source) set(t *testing.T, keys ...crypto.Signer) {
	t.Helper()
	var err error
	if s.keys, err = token.ParsePublic(document(t, false, keys...)); err != nil {
		t.Fatal(err)
	}
}

func (s *source) Key(ctx context.Context, id string) (*token.Key, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.keys.Key(ctx, id)
}
