//! Models and data sets of the Hugging Face hub, in the cache that Python's libraries share.
//!
//! What is in the cache is used without asking the network. What is not is downloaded file by
//! file: each goes to `blobs/ETAG.incomplete`, is continued there after an interruption, and takes
//! its name only when it is whole, so a killed download leaves nothing that looks like a model.
//!
//! ```text
//! models--ORG--NAME/
//!   refs/main              the commit that `main` stood for
//!   blobs/ETAG             contents
//!   snapshots/COMMIT/FILE  links to ../../blobs/ETAG (copies where links are not possible)
//!   .no_exist/COMMIT/FILE  files the repository is known not to have
//! ```

mod cache;
mod client;
mod environment;
mod id;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use environment::{HubEnvironment, Token};
pub use id::{HubId, RepositoryKind};

use self::cache::Repository;
use self::client::{Client, Found};
use crate::error::{Error, Result};
use crate::file;
use crate::task::Task;

/// The data set that holds GLUE.
const GLUE: &str = "nyu-mll/glue";

const CONFIG: &str = "config.json";

/// Small files that come along where they are there. `exit_calibration.json` and
/// `modeling_badge.py` are our own models'.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "spiece.model",
    "README.md",
    "exit_calibration.json",
    "modeling_badge.py",
];

/// Files any of which makes a tokeniser.
const TOKENIZERS: [&str; 3] = ["tokenizer.json", "vocab.txt", "spiece.model"];

/// Weights in the order of preference: a file, and the index that stands for its shards.
const WEIGHTS: [[&str; 2]; 2] = [
    ["model.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json"],
];

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file within its repository.
    pub file: &'a str,
    /// Bytes on disk.
    pub received: u64,
    /// Bytes there will be, if the server says so.
    pub total: Option<u64>,
}

/// What is told about a download; pass `&mut |_| {}` for nothing.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Access to the hub and its cache.
#[derive(Debug)]
pub struct Hub {
    environment: HubEnvironment,
    client: Client,
}

impl Hub {
    /// A hub as an environment describes it.
    pub fn new(environment: HubEnvironment) -> Self {
        let client = Client::new(&environment);
        Self {
            environment,
            client,
        }
    }

    /// The directory of a model named on the command line: a local directory as it is, or the
    /// snapshot of a hub identifier, downloaded if the cache does not have it.
    ///
    /// # Errors
    ///
    /// [`Error::HubId`] for a name that can be neither, and as [`Hub::fetch_model`].
    pub fn resolve(&self, name: &str, on_progress: OnProgress<'_>) -> Result<PathBuf> {
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(path.to_path_buf());
        }
        let id: HubId = name.parse()?;
        match self.cached_model(&id) {
            Some(folder) => Ok(folder),
            None => self.fetch_model(&id, on_progress),
        }
    }

    /// The snapshot of a model that the cache holds completely: configuration, tokeniser, weights.
    pub fn cached_model(&self, id: &HubId) -> Option<PathBuf> {
        let repository = self.repository(RepositoryKind::Model, id);
        let commit = repository.commit_of(&id.revision)?;
        let has_tokenizer = TOKENIZERS.iter().any(|name| repository.has(&commit, name))
            || repository.is_known_absent(&commit, TOKENIZERS[0]);
        let complete = repository.has(&commit, CONFIG)
            && has_tokenizer
            && cached_weights(&repository, &commit).is_some();
        complete.then(|| repository.snapshot(&commit))
    }

    /// Downloads what the cache lacks of a model and gives its snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::HubOffline`], [`Error::HubNotFound`], [`Error::HubForbidden`],
    /// [`Error::HubUnreachable`], [`Error::HubTruncated`], [`Error::HubNoWeights`], and what
    /// writing the cache can meet.
    pub fn fetch_model(&self, id: &HubId, on_progress: OnProgress<'_>) -> Result<PathBuf> {
        if self.environment.offline {
            return self.cached_model(id).ok_or_else(|| {
                let repository = self.repository(RepositoryKind::Model, id);
                self.offline_error(id, &missing_part(&repository, &id.revision))
            });
        }
        let fetch = Fetch::new(self, RepositoryKind::Model, id, CONFIG)?;
        fetch.required(CONFIG, on_progress)?;
        for name in COMPANIONS {
            fetch.optional(name, on_progress)?;
        }
        // Weights last: where they are, everything else is.
        for [single, index] in WEIGHTS {
            if fetch.optional(single, on_progress)? {
                return fetch.finish();
            }
            if fetch.optional(index, on_progress)? {
                for shard in shards(&fetch.repository.file(&fetch.commit, index))? {
                    fetch.required(&shard, on_progress)?;
                }
                return fetch.finish();
            }
        }
        Err(Error::HubNoWeights { id: id.to_string() })
    }

    /// Files of a data set, downloaded where the cache lacks them; gives the snapshot they are in.
    ///
    /// # Errors
    ///
    /// As [`Hub::fetch_model`].
    pub fn dataset(
        &self,
        id: &HubId,
        files: &[String],
        on_progress: OnProgress<'_>,
    ) -> Result<PathBuf> {
        let repository = self.repository(RepositoryKind::Dataset, id);
        let commit = repository.commit_of(&id.revision);
        let missing = |commit: &String| files.iter().find(|name| !repository.has(commit, name));
        match (&commit, commit.as_ref().and_then(missing)) {
            (Some(commit), None) => return Ok(repository.snapshot(commit)),
            (_, missing) if self.environment.offline => {
                let missing = missing
                    .or(files.first())
                    .map_or("its snapshot", String::as_str);
                return Err(self.offline_error(id, missing));
            }
            _ => {}
        }
        let probe = files.first().map_or("README.md", String::as_str);
        let fetch = Fetch::new(self, RepositoryKind::Dataset, id, probe)?;
        for name in files {
            fetch.required(name, on_progress)?;
        }
        fetch.finish()
    }

    /// The folder of a GLUE task's Parquet files, ready for [`crate::split::load`].
    ///
    /// # Errors
    ///
    /// [`Error::NoDataFolder`] for a task that is not of GLUE, and as [`Hub::dataset`].
    pub fn glue(&self, task: &Task, on_progress: OnProgress<'_>) -> Result<PathBuf> {
        let files = task.hub_files();
        if files.is_empty() {
            return Err(Error::NoDataFolder {
                task: task.name.clone(),
            });
        }
        self.dataset(&GLUE.parse()?, &files, on_progress)
    }

    fn repository(&self, kind: RepositoryKind, id: &HubId) -> Repository {
        Repository::new(&self.environment.cache, kind, id)
    }

    fn offline_error(&self, id: &HubId, missing: &str) -> Error {
        Error::HubOffline {
            id: id.to_string(),
            missing: missing.to_owned(),
            cache: self.environment.cache.clone(),
        }
    }
}

/// The download of files of one commit.
struct Fetch<'a> {
    client: &'a Client,
    kind: RepositoryKind,
    id: &'a HubId,
    repository: Repository,
    commit: String,
}

impl<'a> Fetch<'a> {
    /// Asks the hub which commit the revision stands for, so that all files are of one; `probe`
    /// is a file that must be there.
    fn new(hub: &'a Hub, kind: RepositoryKind, id: &'a HubId, probe: &str) -> Result<Self> {
        let repository = hub.repository(kind, id);
        let commit = hub.client.commit(kind, id, probe)?;
        Ok(Self {
            client: &hub.client,
            kind,
            id,
            repository,
            commit,
        })
    }

    /// Downloads a file that must be there.
    fn required(&self, name: &str, on_progress: OnProgress<'_>) -> Result<()> {
        if self.optional(name, on_progress)? {
            return Ok(());
        }
        Err(Error::HubNotFound {
            url: self.client.url(self.kind, self.id, &self.commit, name),
        })
    }

    /// Downloads a file if the repository has it, and tells whether.
    fn optional(&self, name: &str, on_progress: OnProgress<'_>) -> Result<bool> {
        if self.repository.has(&self.commit, name) {
            return Ok(true);
        }
        if self.repository.is_known_absent(&self.commit, name) {
            return Ok(false);
        }
        let url = self.client.url(self.kind, self.id, &self.commit, name);
        let Found::File(remote) = self.client.head(&url)? else {
            self.repository.mark_absent(&self.commit, name)?;
            return Ok(false);
        };
        let blob = self.repository.blob(&remote.etag);
        if !blob.is_file() {
            file::create_folder(&self.repository.blobs())?;
            self.client
                .download(&remote, &blob, &mut |received, total| {
                    on_progress(Progress {
                        file: name,
                        received,
                        total,
                    });
                })?;
        }
        self.repository.link(&self.commit, name, &remote.etag)?;
        Ok(true)
    }

    /// Records what the revision stood for; only now can the snapshot be found by its name.
    fn finish(self) -> Result<PathBuf> {
        self.repository
            .record_revision(&self.id.revision, &self.commit)?;
        Ok(self.repository.snapshot(&self.commit))
    }
}

/// The part of an index of shards that is needed here.
#[derive(Debug, Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// The names of the shards an index lists, each once.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let malformed = |problem: String| Error::MalformedRow {
        path: index.into(),
        line: 1,
        problem,
    };
    let text = file::read_text(index)?;
    let parsed: ShardIndex =
        serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    match names.iter().find(|name| !cache::is_safe_name(name)) {
        Some(name) => Err(malformed(format!("`{name}` is not the name of a shard"))),
        None => Ok(names),
    }
}

/// The weights that a snapshot holds completely.
fn cached_weights(repository: &Repository, commit: &str) -> Option<&'static str> {
    WEIGHTS.into_iter().find_map(|[single, index]| {
        if repository.has(commit, single) {
            return Some(single);
        }
        let shards = shards(&repository.file(commit, index)).ok()?;
        shards
            .iter()
            .all(|shard| repository.has(commit, shard))
            .then_some(index)
    })
}

/// What offline mode lacks, for the message.
fn missing_part(repository: &Repository, revision: &str) -> String {
    match repository.commit_of(revision) {
        None => format!("revision `{revision}`"),
        Some(commit) if !repository.has(&commit, CONFIG) => CONFIG.to_owned(),
        Some(commit) if cached_weights(repository, &commit).is_none() => "its weights".to_owned(),
        Some(_) => "its tokenizer".to_owned(),
    }
}
