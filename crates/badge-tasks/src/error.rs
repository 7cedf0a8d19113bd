//! Everything that can be wrong with the files, names and servers this crate reads from.

use std::path::PathBuf;

/// The result of everything that reads the world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What was wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that must be read does not exist.
    #[error("{path}: no such file; check the path", path = .path.display())]
    FileMissing {
        /// The path as it was asked for.
        path: PathBuf,
    },
    /// The folder a file should be written into does not exist.
    #[error("{path}: the folder to write into does not exist; create it first", path = .path.display())]
    FolderMissing {
        /// The file that should have been written.
        path: PathBuf,
    },
    /// The operating system refuses access.
    #[error("{path}: not allowed to {action}; check its owner and permissions", path = .path.display())]
    FilePermission {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `write`.
        action: &'static str,
    },
    /// The disk or the quota is full.
    #[error("{path}: the disk is full; free some space and run again (nothing was replaced)", path = .path.display())]
    DiskFull {
        /// The file that should have been written.
        path: PathBuf,
    },
    /// Any other failure of the operating system on a file.
    #[error("{path}: cannot {action}: {source}", path = .path.display())]
    FileIo {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A text file holds bytes that are not UTF-8.
    #[error(
        "{path}, line {line}: not UTF-8 at byte {offset} of the file; convert it with iconv",
        path = .path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, counted from 1.
        line: usize,
        /// The first bad byte, counted from 0 at the start of the file.
        offset: usize,
    },
    /// A data file without a single row.
    #[error("{path}: holds no rows; a data file needs at least one", path = .path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// A row with more or fewer fields than the header.
    #[error(
        "{path}, line {line}: {found} fields where {expected} are expected; \
         a field must not hold an unquoted separator or line break",
        path = .path.display()
    )]
    RaggedRow {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Fields in the first row.
        expected: usize,
        /// Fields in this row.
        found: usize,
    },
    /// A line that the format's parser refuses.
    #[error("{path}, line {line}: {problem}", path = .path.display())]
    MalformedRow {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// A column that the task needs is not in the file.
    #[error("{path}: no column {wanted}; the columns are {found}", path = .path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The names that would do.
        wanted: String,
        /// The names that are there.
        found: String,
    },
    /// A text that is empty or only white space.
    #[error(
        "{path}, line {line}: column `{column}` is empty; remove the row or give it a text",
        path = .path.display()
    )]
    EmptyText {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The column.
        column: String,
    },
    /// A text beyond [`crate::dataset::TEXT_BYTES_MAX`].
    #[error(
        "{path}, line {line}: the text of column `{column}` has {bytes} bytes, more than the \
         limit of {limit}; cut it, the model reads its first few thousand characters only",
        path = .path.display()
    )]
    TextTooLong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The column.
        column: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A cell of a kind that its column cannot have.
    #[error(
        "{path}, line {line}: column `{column}` holds {found} where {expected} is expected",
        path = .path.display()
    )]
    CellKind {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The column.
        column: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A row without a label where labels are needed.
    #[error(
        "{path}, line {line}: the row has no label, and this split needs one for every row",
        path = .path.display()
    )]
    MissingLabel {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
    },
    /// A label that the task does not know.
    #[error("{path}, line {line}: unknown label `{label}`; the labels are {known}", path = .path.display())]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The label found.
        label: String,
        /// The labels of the task.
        known: String,
    },
    /// A label given by its number that is not the number of a label.
    #[error(
        "{path}, line {line}: label {label} is out of range; the labels are 0 to {last}",
        path = .path.display()
    )]
    LabelOutOfRange {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The number found.
        label: i64,
        /// The largest number allowed.
        last: usize,
    },
    /// A regression value that is not a finite number.
    #[error("{path}, line {line}: `{value}` is not a finite number", path = .path.display())]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1 (for Parquet the row).
        line: usize,
        /// The value as written.
        value: String,
    },
    /// A Parquet file that cannot be read.
    #[error(
        "{path}: not a readable Parquet file ({problem}); download or write it again",
        path = .path.display()
    )]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        problem: String,
    },
    /// A file name that does not tell its format.
    #[error(
        "{path}: unknown format; name the file .tsv, .csv, .jsonl, .parquet or .txt, \
         or give the format",
        path = .path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A word that is not one of the allowed ones.
    #[error("{what} `{found}` is unknown; use one of {allowed}")]
    UnknownName {
        /// What the word names: `task`, `metric`, `format`, ...
        what: &'static str,
        /// The word.
        found: String,
        /// The words that would do.
        allowed: String,
    },
    /// A metric that makes no sense for the kind of target.
    #[error("metric `{metric}` does not fit {problem}; use one of {allowed}")]
    MetricMismatch {
        /// The metric.
        metric: &'static str,
        /// The kind of target.
        problem: String,
        /// The metrics that fit.
        allowed: String,
    },
    /// A set of labels that no classifier can have.
    #[error("the labels are invalid: {problem}")]
    InvalidLabels {
        /// What is wrong with them.
        problem: String,
    },
    /// A `task.toml` that does not parse, or a key of it with an impossible value.
    #[error("{path}: {key}: {problem}", path = .path.display())]
    TaskFile {
        /// The task file.
        path: PathBuf,
        /// The key, or the line for a syntax error.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A built-in task was asked for without the folder that holds its files.
    #[error("task `{task}` needs its files; give their folder with --data")]
    NoDataFolder {
        /// The task.
        task: String,
    },
    /// None of the files that could be a split is there.
    #[error(
        "task `{task}`: no file for split `{split}` in {folder}; looked for {tried}",
        folder = .folder.display()
    )]
    MissingSplit {
        /// The task.
        task: String,
        /// The split.
        split: &'static str,
        /// The folder searched.
        folder: PathBuf,
        /// The names that would do.
        tried: String,
    },
    /// A split too small to be divided.
    #[error("task `{task}`: {rows} rows of {origin} are too few to divide; {needed} are needed")]
    SplitTooSmall {
        /// The task.
        task: String,
        /// Rows there are.
        rows: usize,
        /// The file or files they come from.
        origin: String,
        /// Rows needed.
        needed: usize,
    },
    /// A split without labels was asked for its targets.
    #[error("split `{split}` has no labels (row {row}); it can be predicted, not scored")]
    Unlabelled {
        /// The split.
        split: String,
        /// The first row without a label, counted from 1.
        row: usize,
    },
    /// A directory without any tokeniser file.
    #[error(
        "{folder}: holds no tokenizer.json and no vocab.txt; copy the model's tokeniser there",
        folder = .folder.display()
    )]
    TokenizerMissing {
        /// The model directory.
        folder: PathBuf,
    },
    /// A directory that has its tokeniser in another library's form only.
    #[error(
        "{path}: this form of tokeniser cannot be read; convert it once with transformers: \
         AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)",
        path = .path.display()
    )]
    TokenizerUnconverted {
        /// The file in the foreign form.
        path: PathBuf,
    },
    /// A tokeniser file that cannot be read.
    #[error("{path}: not a valid tokeniser: {problem}", path = .path.display())]
    TokenizerInvalid {
        /// The file.
        path: PathBuf,
        /// What the library said.
        problem: String,
    },
    /// The tokeniser failed on a text, or made nothing of it.
    #[error("the tokeniser cannot encode the text `{text}`: {problem}")]
    Encode {
        /// The beginning of the text.
        text: String,
        /// What went wrong.
        problem: String,
    },
    /// Token ids that the tokeniser makes no text of.
    #[error("the tokeniser cannot decode the ids: {problem}")]
    Decode {
        /// What went wrong.
        problem: String,
    },
    /// A maximal length that leaves no room for the text.
    #[error(
        "a maximal length of {max_length} tokens leaves no room beside {special} special tokens; \
         give at least {needed}"
    )]
    MaxLength {
        /// The length asked for.
        max_length: usize,
        /// The special tokens the tokeniser adds.
        special: usize,
        /// The least that works.
        needed: usize,
    },
    /// A text that is longer than the model takes, and must not be cut.
    #[error("the text has {tokens} tokens, but the model takes at most {max_length}")]
    TooLong {
        /// Its tokens, special ones included.
        tokens: usize,
        /// The most that fit.
        max_length: usize,
    },
    /// A name that is neither a directory nor a hub identifier.
    #[error(
        "`{id}` is neither a directory nor a hub id (NAME or ORG/NAME, with @REVISION): {problem}"
    )]
    HubId {
        /// The name as given.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Offline mode forbids what is needed.
    #[error(
        "{id}: the cache {cache} lacks {missing} and HF_HUB_OFFLINE is set; \
         run `badge fetch` while online or unset it",
        cache = .cache.display()
    )]
    HubOffline {
        /// The repository.
        id: String,
        /// The file, or the whole snapshot.
        missing: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The hub knows no such repository, revision or file.
    #[error("{url}: not found on the hub; check the name, the revision and HF_ENDPOINT")]
    HubNotFound {
        /// The address asked for.
        url: String,
    },
    /// The hub refuses access.
    #[error(
        "{url}: the hub refuses access (status {status}); the name may be wrong, or the \
         repository is private or gated: set HF_TOKEN and accept its terms on the hub"
    )]
    HubForbidden {
        /// The address asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub answers with any other failure.
    #[error("{url}: the hub answered with status {status}; try again later")]
    HubStatus {
        /// The address asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The hub cannot be reached.
    #[error("{url}: cannot reach the hub ({problem}); check the network and HF_ENDPOINT")]
    HubUnreachable {
        /// The address asked for.
        url: String,
        /// What the client said.
        problem: String,
    },
    /// The server's answer is not that of a hub.
    #[error("{url}: the answer is not that of a hub: {problem}; check HF_ENDPOINT")]
    HubProtocol {
        /// The address asked for.
        url: String,
        /// What is missing or odd.
        problem: String,
    },
    /// A download ended before its end.
    #[error(
        "{url}: the download broke off at {received} of {expected} bytes; \
         run again to go on from there"
    )]
    HubTruncated {
        /// The address asked for.
        url: String,
        /// Bytes on disk.
        received: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// A download whose content is not what the hub announced.
    #[error("{url}: the downloaded content does not have the announced SHA-256; run again")]
    HubCorrupt {
        /// The address asked for.
        url: String,
    },
    /// A repository without weights in a form that can be read.
    #[error(
        "{id}: holds no model.safetensors and no pytorch_model.bin; \
         other weight formats cannot be read"
    )]
    HubNoWeights {
        /// The repository.
        id: String,
    },
}
