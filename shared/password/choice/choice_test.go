package choice_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	zxcvbn "github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/frequency"

	"ticketing.com/auth/shared/password/choice"
)

const email = "jane.doe@example.com"

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		want error
		give []string
	}{
		{"seven characters are too few, however many bytes", choice.TooShort, []string{
			"", "a", "x7Kq2mP", "ключ-27", "🔑🔑🔑🔑🔑🔑🔑"}},
		{"more than 256 characters or a kibibyte are too many", choice.TooLong, []string{
			strings.Repeat("x7Kq2mPz", 32) + "!", strings.Repeat("🔑", 257), strings.Repeat("x", 1025), strings.Repeat("\xff", 257)}},
		{"a common password is guessable", choice.Guessable, []string{
			"password", "12345678", "iloveyou", "trustno1", "football", "baseball", "sunshine", "qwertyuiop"}},
		{"so it is with a digit, a year, a mark", choice.Guessable, []string{
			"password1", "iloveyou1", "monkey123", "summer2024", "Summer2024!", "princess22", "letmein!!", "liverpool1", "welcome123"}},
		{"or in capitals, in leet, backwards, twice", choice.Guessable, []string{
			"PASSWORD", "Passw0rd!", "P@ssw0rd123", "P@55w0rd", "7ru57n01", "drowssap1", "passwordpassword", "passpass"}},
		{"so is a single word or name", choice.Guessable, []string{
			"manchester", "administrator", "elizabeth", "washington", "Elizabeth1"}},
		{"so are two common words", choice.Guessable, []string{"purplemonkey", "dragonfire", "bluehorse"}},
		{"so is what fingers do on a keyboard", choice.Guessable, []string{
			"asdfghjkl", "1q2w3e4r5t", "zaq12wsx", "qazwsxedc", "1qaz2wsx3edc", "qwer43@!", "!QAZ2wsx", "147258369"}},
		{"so is a repetition", choice.Guessable, []string{
			"aaaaaaaaaaaa", "abcabcabc", "11223344", "xyxyxyxyxy", strings.Repeat("a", 256), strings.Repeat("ab", 100)}},
		{"so is a sequence", choice.Guessable, []string{"abcdefgh", "87654321", "abcd1234", "cdefghijk"}},
		{"so are a date and a number of eight digits", choice.Guessable, []string{
			"19840512", "12/05/1984", "1984-05-12", "31.12.99", "58172946", "90417386"}},
		{"so is the name of the service", choice.Guessable, []string{"ticketing", "ticketing1", "Ticketing2024!", "T1cket1ng!"}},

		{"what is made of the email is refused", choice.Personal, []string{
			"jane.doe1", "jane.doe123", "JANE.DOE!!", "janedoe2024", "Jane.Doe.1984", "j4n3d03!!", "eodenaj99",
			"jane.doe58172946", "jane.doe@example.com", "jane.doe@example.com1", "example.com1"}},

		{"eight random letters are accepted", nil, []string{"kjxqwzvp", "ytrqpmna", "wqhzkbtf", "KJXQWZVP"}},
		{"and eight random characters", nil, []string{"x7Kq2mPz", "$k2!fQ0w", "9xk3vq7h"}},
		{"a passphrase is accepted", nil, []string{
			"correct horse battery staple", "correcthorsebatterystaple", "purple monkey dishwasher", "otter-piano-velvet", "seven brave turnips sing"}},
		{"whatever its characters", nil, []string{
			"        kjxqwzvp        ", "kjxq\x00wzvp", "снег и лампа", "正確馬電池釘書釘", "🔑🎟🐎🔋📎🎹🌧🥕", "kjxq\xff\xfewzvp"}},
		{"and its length, up to the limit", nil, []string{
			strings.Repeat("🔑", 200) + "correct horse battery staple, and so on in the text of a song!!!"[:56], long(256)}},
		{"a random password beside a piece of the email is accepted", nil, []string{"jane kjxqwzvp", "kjxqwzvp.com"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, plain := range tt.give {
				if got := choice.Check(plain, email); got != tt.want {
					t.Errorf("Check(%q) = %v, want %v", plain, got, tt.want)
				}
			}
		})
	}
}

// long returns a random text of n letters.
func long(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(r.IntN(26))
	}
	return string(b)
}

// fibonacci returns the beginning of the word 1|11|1|1…, which has about as many
// repetitions in it as a text can have.
func fibonacci(n int) string {
	a, b := "1", "1|"
	for len(b) < n {
		a, b = b, b+a
	}
	return b[:n]
}

func TestCheckTakesAnythingAsPersonal(t *testing.T) {
	t.Parallel()
	for _, personal := range [][]string{
		nil, {""}, {"@"}, {"a@b"}, {"io"}, {"@@@...@"}, {strings.Repeat("x@", 10_000)}, {"\xff\xfe\xfd"}, {"jane", "", "doe"},
	} {
		if err := choice.Check("kjxqwzvp", personal...); err != nil {
			t.Errorf("Check with %.20q: %v", personal, err)
		}
		if err := choice.Check("password1", personal...); err != choice.Guessable {
			t.Errorf("Check of a common one with %.20q: %v", personal, err)
		}
	}
}

func TestRefusalIsASentenceWithoutThePassword(t *testing.T) {
	t.Parallel()
	for _, plain := range []string{"hunter2", "password1", "jane.doe1", strings.Repeat("hunter2", 200)} {
		err := choice.Check(plain, email)
		var r choice.Refusal
		if !errors.As(err, &r) {
			t.Fatalf("Check(%.20q) = %v", plain, err)
		}
		if s := err.Error(); !strings.HasPrefix(s, "Password ") || !strings.HasSuffix(s, ".") || strings.Contains(s, plain) {
			t.Errorf("%q is no such sentence", s)
		}
	}
}

// The whole library is the judge of the search written here. They count alike but
// not the same (the library takes single letters for words and knows no order of
// parts), so they are compared where it is sure.
func TestAgreesWithTheLibrary(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(list string, of int) string {
		words := frequency.Lists[list].List
		return words[r.IntN(min(of, len(words)))]
	}
	var texts []string
	for range 200 {
		word, name := pick("Passwords", 7000), pick("FemaleNames", 1000)
		texts = append(texts,
			pick("English", 30_000), pick("Surname", 30_000), word+fmt.Sprint(r.IntN(1000)), strings.ToUpper(name[:1])+name[1:]+fmt.Sprint(1950+r.IntN(70)),
			strings.NewReplacer("a", "@", "e", "3", "o", "0").Replace(word)+"!", word+name, name+word, pick("Passwords", 200)+pick("Passwords", 200),
			fmt.Sprintf("%02d/%02d/%d", 1+r.IntN(28), 1+r.IntN(12), 1930+r.IntN(80)),
		)
	}
	guessable := 0
	for _, text := range texts {
		if len(text) < 8 {
			continue
		}
		const sure = 16 // bits
		if l := zxcvbn.PasswordStrength(text, nil); l.Entropy < sure {
			guessable++
			if choice.Check(text) == nil {
				t.Errorf("%q: the library gives it %.1f bits, and it is accepted", text, l.Entropy)
			}
		}
	}
	if guessable < 500 {
		t.Errorf("only %d were guessable: the test says little", guessable)
	}

	refused, safe := 0, 0
	for range 300 {
		b := make([]byte, 8+r.IntN(5))
		for i := range b {
			b[i] = 'a' + byte(r.IntN(26))
		}
		if l := zxcvbn.PasswordStrength(string(b), nil); l.Score >= 3 {
			safe++
			if choice.Check(string(b)) != nil {
				refused++
			}
		}
	}
	if safe < 200 || refused > safe/100 {
		t.Errorf("of %d random ones that the library calls safe, %d are refused", safe, refused)
	}
}

// Words from all over each list are refused, which shows that all were read.
func TestRefusesListedWords(t *testing.T) {
	t.Parallel()
	for name, list := range frequency.Lists {
		step := 1 + len(list.List)/300
		for i := 0; i < len(list.List); i += step {
			if word := list.List[i]; len(word) >= 8 && choice.Check(word) != choice.Guessable {
				t.Errorf("%s: %q is accepted", name, word)
			}
		}
	}
}

// The library's other packages unpack their lists as the program starts.
func TestLinksTheDataAlone(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const library = "github.com/ccojocar/zxcvbn-go"
	var linked []string
	for _, pkg := range strings.Fields(string(out)) {
		if strings.HasPrefix(pkg, library) {
			linked = append(linked, pkg)
		}
	}
	if got := strings.Join(linked, " "); got != library+"/data" {
		t.Errorf("linked: %s", got)
	}
}

func BenchmarkCheck(b *testing.B) {
	choice.Check("kjxqwzvp") // reads the lists
	mixed := strings.Repeat("4@8({[<369!1|0$5+7%2", 13)[:256]
	for _, bb := range []struct{ name, plain, personal string }{
		{"common", "Passw0rd!", email},
		{"random", "x7Kq2mPz", email},
		{"passphrase", "correct horse battery staple", email},
		{"longest", long(256), email},
		{"worst: 256 symbols that may be letters, and a long email", mixed, strings.Repeat("483.", 256)},
		{"worst: a Fibonacci word, which repeats itself most", fibonacci(256), email},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				choice.Check(bb.plain, bb.personal)
			}
		})
	}
}
