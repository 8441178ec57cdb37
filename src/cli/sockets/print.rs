//! Rows to stdout: a table, JSON, NDJSON, CSV.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use rustix::termios::tcgetwinsize;

use super::args::Format;
use super::metrics;
use super::plan::Plan;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::render::document::{JsonDocument, csv_error, ndjson};
use crate::render::table::{Align, Cells, Heading, StreamTable};
use crate::sockets::show::Shown;
use crate::sockets::show::columns::Column;
use crate::sockets::show::detail;
use crate::sockets::show::document::{Groups, SCHEMA, SocketDoc};

/// How much is gathered before it is written.
const BUFFER: usize = 64 << 10;

/// Prints the name of every column.
pub(super) fn column_names() -> io::Result<Exit> {
    let names: Vec<&str> = Column::all().map(Column::name).collect();
    match writeln!(io::stdout().lock(), "{}", names.join("\n")) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(Exit::Done),
    }
}

/// Takes rows and prints them.
pub(super) trait Printer {
    /// Prints a row.
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()>;

    /// Prints what is left.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// The printer of a plan, on stdout.
pub(super) fn printer(
    plan: &Plan,
    output: Output,
) -> io::Result<Box<dyn Printer + Send>> {
    let out = BufWriter::with_capacity(BUFFER, io::stdout());
    let columns = plan.columns.clone();
    let _ = output;
    Ok(match plan.format {
        Format::Json => Box::new(Json {
            document: JsonDocument::begin(out, SCHEMA, "sockets")?,
            groups: plan.groups,
        }),
        Format::Ndjson => Box::new(Ndjson { out, groups: plan.groups }),
        Format::Openmetrics => return Err(metrics::none_of_rows()),
        Format::Csv => Box::new(Csv::begin(out, columns, plan.header)?),
        Format::Table => {
            let fits = io::stdout().is_terminal() && !plan.detail.any();
            let filler = Filler::of(plan);
            let table = StreamTable::new(out, filler.headings(), plan.header);
            let printer = TablePrinter { table, filler };
            match fits {
                true => Box::new(Fitted::new(printer, plan.header)),
                false => Box::new(printer),
            }
        }
    })
}

struct Json<W: Write> {
    document: JsonDocument<W>,
    groups: Groups,
}

impl<W: Write> Printer for Json<W> {
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        self.document.row(&SocketDoc::of(shown, self.groups))
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.document.finish().map(drop)
    }
}

struct Ndjson<W: Write> {
    out: W,
    groups: Groups,
}

impl<W: Write> Printer for Ndjson<W> {
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        ndjson(&mut self.out, &SocketDoc::of(shown, self.groups))
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

struct Csv<W: Write> {
    csv: csv::Writer<W>,
    columns: Vec<Column>,
    cells: Cells,
}

impl<W: Write> Csv<W> {
    fn begin(out: W, columns: Vec<Column>, header: bool) -> io::Result<Self> {
        let mut csv = csv::Writer::from_writer(out);
        if header {
            let keys = columns.iter().map(|column| column.key());
            csv.write_record(keys).map_err(csv_error)?;
        }
        Ok(Self { csv, columns, cells: Cells::default() })
    }
}

impl<W: Write> Printer for Csv<W> {
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        self.cells.clear();
        for column in &self.columns {
            self.cells.push(|to| column.write_plain(to, shown));
        }
        self.csv.write_record(self.cells.iter()).map_err(csv_error)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.csv.flush()
    }
}

/// What a row of a table is made of.
pub(super) struct Filler {
    columns: Vec<Column>,
    detail: detail::Wanted,
    /// Whether details stand on a line of their own.
    below: bool,
    /// The columns of the row that was filled in last.
    pub(super) cells: Cells,
    /// What stands on a line of its own below it.
    pub(super) tail: String,
}

impl Filler {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            columns: plan.columns.clone(),
            detail: plan.detail,
            below: plan.detail.any() && !plan.oneline,
            cells: Cells::default(),
            tail: String::new(),
        }
    }

    pub(super) fn headings(&self) -> Vec<Heading> {
        self.columns.iter().map(|column| column.heading()).collect()
    }

    pub(super) fn fill(&mut self, shown: &Shown<'_>) {
        self.cells.clear();
        self.tail.clear();
        for column in &self.columns {
            self.cells.push(|to| column.write(to, shown));
        }
        if !self.detail.any() {
            return;
        }
        // As ss: timers and users beside the row, memory and TCP_INFO below it.
        let beside = detail::Wanted { memory: false, info: false, ..self.detail };
        let below = detail::Wanted { timer: false, extended: false, ..self.detail };
        self.cells.extend_last(|to| {
            detail::write(to, shown, if self.below { beside } else { self.detail });
        });
        if self.below {
            detail::write(&mut self.tail, shown, below);
            if !self.tail.is_empty() {
                self.tail.replace_range(..1, "\t");
                self.tail.push('\n');
            }
        }
    }
}

/// A table written as its rows come.
struct TablePrinter<W: Write> {
    table: StreamTable<W>,
    filler: Filler,
}

impl<W: Write> Printer for TablePrinter<W> {
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        self.filler.fill(shown);
        self.table.row(&self.filler.cells, &self.filler.tail)
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.table.finish().map(drop)
    }
}

/// Rows that are fitted to a terminal's width; more are printed as they come.
const FITTED: usize = 1000;

/// A table that fits the terminal it is printed on.
struct Fitted<W: Write> {
    inner: TablePrinter<W>,
    rows: Vec<Cells>,
    header: bool,
    streams: bool,
}

impl<W: Write> Fitted<W> {
    fn new(inner: TablePrinter<W>, header: bool) -> Self {
        Self { inner, rows: Vec::new(), header, streams: false }
    }
}

impl<W: Write> Printer for Fitted<W> {
    fn row(&mut self, shown: &Shown<'_>) -> io::Result<()> {
        if self.streams {
            return self.inner.row(shown);
        }
        self.inner.filler.fill(shown);
        self.rows.push(self.inner.filler.cells.clone());
        if self.rows.len() > FITTED {
            self.streams = true;
            for cells in std::mem::take(&mut self.rows) {
                self.inner.table.row(&cells, "")?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let Self { inner, rows, header, streams } = *self;
        if streams {
            return inner.table.finish().map(drop);
        }
        let text = fit(&inner.filler.headings(), &rows, header);
        let mut out = BufWriter::new(io::stdout());
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// The text of a table, as wide as the terminal at the most.
fn fit(headings: &[Heading], rows: &[Cells], header: bool) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if let Ok(size) = tcgetwinsize(io::stdout())
        && size.ws_col > 0
    {
        table.set_width(size.ws_col);
    }
    if header {
        table.set_header(headings.iter().map(|heading| heading.title.clone()));
    }
    for cells in rows {
        table.add_row(cells.iter().map(str::to_owned));
    }
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 1));
        if heading.align == Align::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
