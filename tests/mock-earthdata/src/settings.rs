//! What a world is made of, and what can be changed while it runs.

use std::time::Duration;

use crate::cmr::Cmr;
use crate::content::Content;
use crate::faults::FaultRule;

/// The name of the one user of a default world.
pub const DEFAULT_USER: &str = "scientist";

/// Their password: with the characters that netrc parsers and url encoders stumble over.
pub const DEFAULT_PASSWORD: &str = "correct horse # battery \"staple\"";

/// Their bearer token, shaped as a JWT with the claim `{"uid":"scientist"}`: TEA tells tokens from rubbish by that.
pub const DEFAULT_TOKEN: &str =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJ1aWQiOiJzY2llbnRpc3QifQ.bW9jay1zaWduYXR1cmUtMQ";

/// A token that decodes as a JWT but belongs to nobody: revoked, or run out. TEA passes on Earthdata Login's 401 for it.
pub const REVOKED_TOKEN: &str =
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJ1aWQiOiJub2JvZHkifQ.bW9jay1zaWduYXR1cmUtMA";

/// A world before it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may log in.
    pub users: Vec<User>,
    /// What S3 holds.
    pub buckets: Vec<Bucket>,
    /// How long credentials live; a fraction of a second counts, but `expiration` is cut to whole ones.
    pub lifetime: Duration,
    /// Each n-th `/s3credentials` request that would have been answered with credentials is answered 500 instead.
    pub fail_every: Option<u32>,
    /// The endpoints take bearer tokens; if not, they redirect those who send one, as some archives did in 2023.
    pub bearer: bool,
    /// Earthdata Login exchanges passwords for tokens; if not, the path is 404.
    pub token_api: bool,
    /// Delays and bandwidth of S3.
    pub shape: Shape,
    /// Ports of the four listeners; 0 takes a free one.
    pub ports: Ports,
    /// All listeners speak TLS, with certificates of the CA in [`crate::World::ca_pem`].
    pub tls: bool,
    /// What goes wrong at S3, see [`FaultRule`].
    pub faults: Vec<FaultRule>,
    /// What CMR holds, and how it answers.
    pub cmr: Cmr,
    /// What S3 has as the checksum of each object, for those who ask.
    pub checksums: Checksums,
    /// For benchmarks: S3 checks no signatures and no tokens, reads no more of a request than it must, and costs as little
    /// as it can. Everything else is the same: buckets, bytes, [`Shape`], counters, faults.
    pub lean: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            users: vec![User::default()],
            buckets: Vec::new(),
            lifetime: Duration::from_secs(3600),
            fail_every: None,
            bearer: true,
            token_api: true,
            shape: Shape::default(),
            ports: Ports::default(),
            tls: false,
            faults: Vec::new(),
            cmr: Cmr::default(),
            checksums: Checksums::default(),
            lean: false,
        }
    }
}

/// What S3 has as the checksum of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// None: the object is older than checksums, or the server does not know them.
    None,
    /// CRC-64/NVME of all its bytes.
    #[default]
    FullObject,
    /// The same, told also to who does not ask for it.
    Unasked,
    /// CRC-32 of the CRC-32 of its parts.
    Composite,
}

/// A user of Earthdata Login.
#[derive(Debug, Clone)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Password.
    pub password: String,
    /// Bearer tokens. `find_or_create_token` answers with the first, or makes one.
    pub tokens: Vec<String>,
    /// Has the user accepted the licence of the data?
    pub eula_accepted: bool,
}

impl Default for User {
    fn default() -> Self {
        Self {
            name: DEFAULT_USER.to_owned(),
            password: DEFAULT_PASSWORD.to_owned(),
            tokens: vec![DEFAULT_TOKEN.to_owned()],
            eula_accepted: true,
        }
    }
}

/// A bucket and its objects.
#[derive(Debug, Clone, Default)]
pub struct Bucket {
    /// Name, by the rules of S3 (3 to 63 of a-z, 0-9, `.` and `-`).
    pub name: String,
    /// Keys and contents, in any order; of a key given twice the last counts.
    pub objects: Vec<(String, Content)>,
    /// What credentials allow here.
    pub access: Access,
    /// A page of a listing has no more entries than this, though more may be asked for, as S3 may do.
    pub page: Option<usize>,
}

/// What the credentials of every user allow in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `s3:ListBucket`.
    pub list: ListAccess,
    /// `s3:GetObject`, of every key: GET and HEAD.
    pub get: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            list: ListAccess::Everywhere,
            get: true,
        }
    }
}

/// Where `s3:ListBucket` is granted. Only `Everywhere` makes a GET or HEAD of a missing key say 404 instead of 403: a
/// condition on `s3:prefix`, which is what `Below` stands for, does not hold for requests that have no prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListAccess {
    /// In the whole bucket.
    Everywhere,
    /// For requests whose `prefix` begins with one of these.
    Below(Vec<String>),
    /// Nowhere.
    Nowhere,
}

/// How slow S3 is. All zero and unlimited by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// From the request to the first byte of the answer, whatever the answer.
    pub first_byte: Duration,
    /// Bandwidth of a response body (and so of a connection), in bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Bandwidth of all bodies together, as of the network of a small machine, in bytes a second.
    pub link_bytes_per_second: Option<u64>,
    /// What each entry of a listing adds to the first-byte delay.
    pub per_listed_key: Duration,
}

/// The ports of the listeners, 0 for a free one: fixed ones let a world come back at the same addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ports {
    /// Earthdata Login, on 127.0.0.1.
    pub login: u16,
    /// The TEA-style distribution host, on 127.0.0.2.
    pub tea: u16,
    /// The Cumulus-style distribution host, on 127.0.0.3.
    pub cumulus: u16,
    /// S3, on 127.0.0.4.
    pub s3: u16,
}

/// One of the hosts, to be reached or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Earthdata Login, and with it the control paths.
    Login,
    /// The TEA-style distribution host.
    Tea,
    /// The Cumulus-style distribution host.
    Cumulus,
    /// S3.
    S3,
}

/// How `/s3credentials` answers.
///
/// `Status`, `Redirect` and `Hang` stand for a host that is out of order: every request gets them, logged in or not. All others
/// take the place of the credentials, and an unauthenticated request is sent to Earthdata Login as always.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// With credentials.
    #[default]
    Normal,
    /// With this status and body (500, 503, 424, 404).
    Status(u16, String),
    /// With this status and `Location`, as a host in other hands might.
    Redirect(u16, String),
    /// 200 with a page of HTML, as a proxy or a login page would.
    Html,
    /// 200 with JSON that ends in the middle.
    BadJson,
    /// 200 with JSON that lacks `sessionToken`.
    MissingField,
    /// The EULA is not accepted: TEA answers 403 with JSON, Cumulus redirects to a page of Earthdata Login.
    EulaRefused,
    /// 403 HTML: the user may not have this data.
    NoDataAccess,
    /// With credentials, after this long.
    Slow(Duration),
    /// Never; the connection stays open.
    Hang,
}
