package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Whoever is on the other end of a connection may do nothing for ever. So no server
// and no client of net/http goes without a time limit, and what net/http keeps for all
// the program, which has none, is used by nobody.
func TestEveryServerAndEveryClientHasATimeLimit(t *testing.T) {
	needs := map[string][]string{"Server": {"ReadTimeout", "WriteTimeout", "IdleTimeout", "MaxHeaderBytes"}, "Client": {"Timeout"}}
	common := []string{"Get", "Head", "Post", "PostForm", "DefaultClient", "ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS",
		"Handle", "HandleFunc", "DefaultServeMux"}
	benches := []string{"endpointtest", "lambdatest", "e2e", "bench"} // what tests stand on is in nobody's way
	literals := 0
	err := filepath.WalkDir(filepath.Join("..", "..", ".."), func(path string, d fs.DirEntry, err error) error {
		if d.IsDir() && slices.Contains(benches, d.Name()) {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				kind := ofHTTP(n.Type)
				for _, name := range needs[kind] {
					literals++
					if !sets(n, name) {
						t.Errorf("%s: an http.%s without %s", files.Position(n.Pos()), kind, name)
					}
				}
			case *ast.SelectorExpr:
				if name := ofHTTP(n); slices.Contains(common, name) {
					t.Errorf("%s: http.%s is the whole program's, and has no time limit", files.Position(n.Pos()), name)
				}
			case *ast.CallExpr:
				if f, is := n.Fun.(*ast.Ident); is && f.Name == "new" && len(needs[ofHTTP(n.Args[0])]) > 0 {
					t.Errorf("%s: new(http.%s) has no time limit", files.Position(n.Pos()), ofHTTP(n.Args[0]))
				}
			}
			return true
		})
		return nil
	})
	if err != nil || literals < 6 {
		t.Fatalf("%d limits are looked at: %v", literals, err)
	}
}

// ofHTTP is the name of what net/http exports, or "".
func ofHTTP(e ast.Expr) string {
	if s, is := e.(*ast.SelectorExpr); is {
		if of, is := s.X.(*ast.Ident); is && of.Name == "http" {
			return s.Sel.Name
		}
	}
	return ""
}

func sets(literal *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(literal.Elts, func(e ast.Expr) bool {
		kv, is := e.(*ast.KeyValueExpr)
		if !is {
			return false
		}
		key, is := kv.Key.(*ast.Ident)
		return is && key.Name == name
	})
}
