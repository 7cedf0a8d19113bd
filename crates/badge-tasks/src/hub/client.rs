//! The hub's HTTP: heads, redirects that keep the token to its own server, resumed downloads.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::cache::is_safe_name;
use super::{HubEnvironment, HubId, RepositoryKind, Token};
use crate::error::{Error, Result};
use crate::file::{read_error, write_error};
use crate::hash::ContentHasher;

/// How often a download that breaks off is taken up again.
const ATTEMPTS: usize = 3;

const REDIRECTS_MAX: usize = 10;

/// A server that is silent for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Told of bytes on disk and bytes in all.
type OnBytes<'a> = &'a mut dyn FnMut(u64, Option<u64>);

#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

/// What the hub says of a file without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) etag: String,
    pub(super) size: Option<u64>,
    pub(super) commit: Option<String>,
}

/// Whether a repository has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    File(Remote),
    Nothing,
}

/// How one attempt at a download ended.
enum Attempt {
    Complete,
    /// The connection broke at this many bytes.
    BrokenOff(u64),
}

impl Client {
    pub(super) fn new(environment: &HubEnvironment) -> Self {
        let config = Agent::config_builder()
            // Both are dealt with here: a status becomes an error with advice, and a redirect
            // must not carry the token to another server.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("badge/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            endpoint: environment.endpoint.clone(),
            token: environment.token.clone(),
        }
    }

    /// The address of a file at a commit.
    pub(super) fn url(&self, kind: RepositoryKind, id: &HubId, commit: &str, name: &str) -> String {
        format!(
            "{}/{}{}/resolve/{commit}/{name}",
            self.endpoint,
            kind.url_prefix(),
            id.name
        )
    }

    /// The commit that a revision stands for, as the head of one of its files tells.
    pub(super) fn commit(&self, kind: RepositoryKind, id: &HubId, name: &str) -> Result<String> {
        let url = self.url(kind, id, &id.revision.replace('/', "%2F"), name);
        match self.head(&url)? {
            Found::Nothing => Err(Error::HubNotFound { url }),
            Found::File(remote) => remote
                .commit
                .ok_or_else(|| protocol(&url, "it names no commit (x-repo-commit)".to_owned())),
        }
    }

    /// Asks for a file without its content.
    pub(super) fn head(&self, url: &str) -> Result<Found> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(Method::Head, &url)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(Found::Nothing);
            }
            // Content that lies elsewhere is announced by the redirect itself; a plain redirect
            // means that the repository was renamed.
            let announced = header(&response, "x-linked-etag").is_some();
            if let Some(location) = redirect(&response, &url).filter(|_| !announced) {
                url = location;
                continue;
            }
            if !response.status().is_redirection() {
                check_status(&url, response.status())?;
            }
            return remote(&response, url).map(Found::File);
        }
        Err(protocol(&url, "it redirects without end".to_owned()))
    }

    /// Downloads a file to `blob`, going on where an earlier attempt stopped.
    pub(super) fn download(
        &self,
        remote: &Remote,
        blob: &Path,
        on_bytes: OnBytes<'_>,
    ) -> Result<()> {
        let partial = blob.with_file_name(format!("{}.incomplete", remote.etag));
        let broken = |source| write_error(&partial, source);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&partial)
            .map_err(broken)?;
        // Another process may be downloading the same file; the second finds it done.
        match file.lock() {
            // Some network file systems have no locks; then the loser downloads in vain.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            locked => locked.map_err(broken)?,
        }
        if blob.is_file() {
            return Ok(());
        }
        let mut received = 0;
        for _ in 0..ATTEMPTS {
            match self.attempt(remote, &partial, &mut file, on_bytes)? {
                Attempt::Complete => {
                    verify(remote, &partial, &mut file)?;
                    file.sync_all().map_err(broken)?;
                    return std::fs::rename(&partial, blob).map_err(broken);
                }
                Attempt::BrokenOff(at) => received = at,
            }
        }
        let expected = remote.size.unwrap_or(received);
        Err(Error::HubTruncated {
            url: remote.url.clone(),
            received,
            expected,
        })
    }

    /// Asks for what is missing and appends it.
    fn attempt(
        &self,
        remote: &Remote,
        partial: &Path,
        file: &mut File,
        on_bytes: OnBytes<'_>,
    ) -> Result<Attempt> {
        let broken = |source| write_error(partial, source);
        let mut received = file.metadata().map_err(broken)?.len();
        if remote.size.is_some_and(|size| received > size) {
            file.set_len(0).map_err(broken)?;
            received = 0;
        }
        if received > 0 && remote.size == Some(received) {
            return Ok(Attempt::Complete);
        }
        let response = self.request(Method::Get { from: received }, &remote.url)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            file.set_len(0).map_err(broken)?;
            return Ok(Attempt::BrokenOff(0));
        }
        check_status(&remote.url, response.status())?;
        if received > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // The server sends the file from its beginning.
            file.set_len(0).map_err(broken)?;
            received = 0;
        }
        let mut body = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut buffer = vec![0; 1 << 16];
        on_bytes(received, remote.size);
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    file.write_all(&buffer[..count]).map_err(broken)?;
                    received += count as u64;
                    on_bytes(received, remote.size);
                }
                Err(_) => return Ok(Attempt::BrokenOff(received)),
            }
        }
        let complete = remote.size.is_none_or(|size| size == received);
        Ok(if complete {
            Attempt::Complete
        } else {
            Attempt::BrokenOff(received)
        })
    }

    /// Sends a request and follows its redirects.
    fn request(&self, method: Method, url: &str) -> Result<Response<Body>> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let response = self.send(method, &url)?;
            match redirect(&response, &url) {
                Some(location) => url = location,
                None => return Ok(response),
            }
        }
        Err(protocol(&url, "it redirects without end".to_owned()))
    }

    fn send(&self, method: Method, url: &str) -> Result<Response<Body>> {
        let mut request = match method {
            Method::Head => self.agent.head(url),
            Method::Get { .. } => self.agent.get(url),
        };
        if let Method::Get { from } = method
            && from > 0
        {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.token
            && origin(url) == origin(&self.endpoint)
        {
            request = request.header("Authorization", token.authorization());
        }
        request.call().map_err(|error| unreachable(url, &error))
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    Head,
    /// From this byte on.
    Get {
        from: u64,
    },
}

/// What a head says of a file; its size only where the whole file would be sent.
fn remote(response: &Response<Body>, url: String) -> Result<Remote> {
    let etag = header(response, "x-linked-etag").or_else(|| header(response, "etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    let Some(etag) = etag.filter(|etag| is_safe_name(etag)) else {
        return Err(protocol(&url, "it has no usable ETag".to_owned()));
    };
    let length = header(response, "content-length").filter(|_| response.status().is_success());
    let size = header(response, "x-linked-size")
        .or(length)
        .and_then(|size| size.parse().ok());
    let commit = header(response, "x-repo-commit").filter(|commit| is_safe_name(commit));
    let commit = commit.map(str::to_owned);
    Ok(Remote {
        url,
        etag,
        size,
        commit,
    })
}

/// Where a redirect leads.
fn redirect(response: &Response<Body>, url: &str) -> Option<String> {
    let location = header(response, "location").filter(|_| response.status().is_redirection())?;
    Some(if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", url.split("://").next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        let folder = url.split('?').next().and_then(|url| url.rsplit_once('/'));
        format!("{}/{location}", folder.map_or(url, |(folder, _)| folder))
    })
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| host + at);
    &url[..end]
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

fn check_status(url: &str, status: StatusCode) -> Result<()> {
    let (url, code) = (url.to_owned(), status.as_u16());
    match code {
        200..=299 => Ok(()),
        401 | 403 => Err(Error::HubForbidden { url, status: code }),
        404 => Err(Error::HubNotFound { url }),
        _ => Err(Error::HubStatus { url, status: code }),
    }
}

/// Large files are called by the SHA-256 of their content, so it can be checked.
fn verify(remote: &Remote, partial: &Path, file: &mut File) -> Result<()> {
    if remote.etag.len() != 64 || !remote.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let broken = |source| read_error(partial, source);
    file.seek(SeekFrom::Start(0)).map_err(broken)?;
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).map_err(broken)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    if hasher.finish() == remote.etag.to_ascii_lowercase() {
        return Ok(());
    }
    // Going on from wrong bytes would never end well.
    file.set_len(0)
        .map_err(|source| write_error(partial, source))?;
    Err(Error::HubCorrupt {
        url: remote.url.clone(),
    })
}

fn unreachable(url: &str, error: &ureq::Error) -> Error {
    Error::HubUnreachable {
        url: url.to_owned(),
        problem: error.to_string(),
    }
}

fn protocol(url: &str, problem: String) -> Error {
    Error::HubProtocol {
        url: url.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_ends_before_the_path() {
        for (url, expected) in [
            ("https://hub.example/a/b", "https://hub.example"),
            ("http://127.0.0.1:80?x", "http://127.0.0.1:80"),
            ("https://hub.example", "https://hub.example"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }
}
