package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
	_ "modernc.org/sqlite" // the driver "sqlite", which FerretDB uses as well
)

// A catalog finds documents in the SQLite files of FerretDB and creates an index that
// FerretDB lacks. FerretDB passes a filter to SQLite only if the filter is {_id: x}, as
// a condition on column->'$._id'. FerretDB's own index is on column->"_id". SQLite
// treats these as two different expressions, so each such query reads the whole table.
//
// A catalog has its own connections to the files. The proxy never uses it while FerretDB
// executes a command, so neither waits for a lock of the other. It closes its
// connections before FerretDB deletes a file. An index is created in one SQLite
// transaction, so SIGKILL leaves no partial index.
type catalog struct {
	pragmas string
	files   map[string]*file // by database
}

type file struct {
	*sql.DB
	tables map[string]table // by collection
}

type table struct {
	name    string
	lookups map[string]lookup // by field
}

type lookup struct {
	*sql.Stmt
	text string
}

// column is FerretDB's column for a document. It holds JSON with a schema of the types
// in the member "$s".
const column = "_ferretdb_sjson"

var (
	databaseName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,63}$`) // the names that FerretDB accepts
	fieldName    = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`)
)

// openCatalog opens the files in the working directory.
func openCatalog(pragmas string) (*catalog, error) {
	c := &catalog{pragmas: pragmas, files: map[string]*file{}}
	names, err := filepath.Glob("*.sqlite")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := c.load(strings.TrimSuffix(name, ".sqlite")); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

// has reports whether the catalog has loaded a collection and its index.
func (c *catalog) has(db, collection string) bool {
	f := c.files[db]
	if f == nil {
		return false
	}
	_, has := f.tables[collection]
	return has
}

// load reads the collections of a database and creates their indexes.
func (c *catalog) load(db string) error {
	if !databaseName.MatchString(db) {
		return nil
	}
	if _, err := os.Stat(db + ".sqlite"); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.close(db)
	opened, err := sql.Open("sqlite", "file:"+db+".sqlite?"+c.pragmas)
	if err != nil {
		return err
	}
	f := &file{DB: opened, tables: map[string]table{}}
	if err := f.read(); err != nil {
		f.Close()
		return err
	}
	c.files[db] = f
	return nil
}

// close closes the connections to a database.
func (c *catalog) close(db string) {
	if f := c.files[db]; f != nil {
		f.Close()
		delete(c.files, db)
	}
}

func (f *file) read() error {
	var found int
	if err := f.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE name = '_ferretdb_collections'`).Scan(&found); err != nil || found == 0 {
		return err
	}
	rows, err := f.Query(`SELECT name, table_name, settings FROM "_ferretdb_collections"`)
	if err != nil {
		return err
	}
	defer rows.Close()
	type collection struct {
		name, table string
		settings    struct {
			Indexes []struct {
				Key []struct{ Field string }
			}
		}
	}
	var all []collection
	for rows.Next() {
		var c collection
		var settings []byte
		if err := rows.Scan(&c.name, &c.table, &settings); err != nil {
			return err
		}
		if err := json.Unmarshal(settings, &c.settings); err != nil {
			return err
		}
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, c := range all {
		t := table{c.table, map[string]lookup{}}
		if _, err := f.Exec(fmt.Sprintf(`CREATE INDEX IF NOT EXISTS %s ON %s (%s->'$._id')`, quote(c.table+" by _id"), quote(c.table), column)); err != nil {
			return err
		}
		for _, index := range c.settings.Indexes {
			if len(index.Key) != 1 || !fieldName.MatchString(index.Key[0].Field) {
				continue
			}
			field := index.Key[0].Field
			// The expression is that of FerretDB's index. A filter also matches a
			// document whose field is an array that contains the value. In JSON an array
			// begins with [, so the query also returns one row if the field of any
			// document is an array.
			text := strings.NewReplacer("$column", column, "$field", field, "$table", quote(c.table)).Replace(
				`SELECT $column->>'$._id', $column->>'$."$s".p._id.t', $column->>'$."$s".p.$field.t'
				FROM $table WHERE $column->"$field" = ?
				UNION ALL SELECT * FROM (SELECT '', 'array', 'array' FROM $table WHERE $column->"$field" >= '[' AND $column->"$field" < '\' LIMIT 1)
				LIMIT 2`)
			prepared, err := f.Prepare(text)
			if err != nil {
				return err
			}
			t.lookups[field] = lookup{prepared, text}
		}
		f.tables[c.name] = t
	}
	return nil
}

func quote(identifier string) string { return `"` + strings.ReplaceAll(identifier, `"`, `""`) + `"` }

// find returns the _id of the only document of a collection whose field has a value, or
// nil if no document has it. It reports false if the field has no index, if several
// documents match, or if a document has other types. The query must then go to FerretDB.
func (c *catalog) find(db, collection, field, value string) (id any, ok bool, err error) {
	f := c.files[db]
	if f == nil {
		return nil, false, nil
	}
	lookup, is := f.tables[collection].lookups[field]
	if !is || !utf8.ValidString(value) {
		return nil, false, nil
	}
	text, err := json.Marshal(value) // the encoding that FerretDB uses
	if err != nil {
		return nil, false, err
	}
	rows, err := lookup.Query(string(text))
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var found, idType, fieldType sql.NullString
		if err := rows.Scan(&found, &idType, &fieldType); err != nil {
			return nil, false, err
		}
		switch {
		case fieldType.String != "string":
			return nil, false, nil
		case idType.String == "string":
			id = found.String
		case idType.String == "objectId":
			if id, err = bson.ObjectIDFromHex(found.String); err != nil {
				return nil, false, err
			}
		default:
			return nil, false, nil
		}
	}
	return id, n < 2, rows.Err()
}
