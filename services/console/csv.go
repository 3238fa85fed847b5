package console

import (
	"encoding/csv"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tabular are pages' data that are a table.
type tabular interface {
	titled
	rows() [][]string // the first has the columns' names
}

// asCSV writes the table as CSV, if the caller wants that.
func asCSV(w http.ResponseWriter, r *http.Request, name string, table tabular) bool {
	if r.FormValue("format") != "csv" {
		return false
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="f2mesh-`+name+`.csv"`)
	out := csv.NewWriter(w)
	for _, row := range table.rows() {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = harmless(cell)
		}
		if out.Write(cells) != nil {
			return true // the caller has gone
		}
	}
	out.Flush()
	return true
}

// harmless is a cell that no spreadsheet takes for a formula.
func harmless(cell string) string {
	if cell == "" || !strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return cell
	}
	if _, err := strconv.ParseFloat(cell, 64); err == nil {
		return cell
	}
	return "'" + cell
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
