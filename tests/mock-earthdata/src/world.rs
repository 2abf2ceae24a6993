//! The handle: starts the world, turns it, looks into it, ends it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::cmr::Cmr;
use crate::content::Content;
use crate::credentials::Ledger;
use crate::distribution::{self, Family};
use crate::faults::FaultRule;
use crate::login::{self, Accounts};
use crate::meter::{Counters, Meter, RequestRecord};
use crate::s3::{Gate, Lean};
use crate::script::{RuleCount, Script};
use crate::server::{self, Http, serve};
use crate::settings::{Access, Answer, Host, Settings, Shape, User};
use crate::state::{Addresses, Controls, Doors, State};
use crate::store::Store;
use crate::tls::Authority;

/// How long the end of a world waits for a read of a file to come back.
const LAST_READ: Duration = Duration::from_secs(5);

/// A running world. Dropping it closes every connection and frees the ports.
pub struct World {
    state: Arc<State>,
    ca_pem: String,
    /// Taken by the drop.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("addresses", &self.state.addresses)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Starts a world; on return it answers. Fails if a port is taken, or a file of a bucket cannot be looked at.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let store = Store::new(settings.buckets)?;
        let ports = settings.ports;
        let authority = settings.tls.then(Authority::new).transpose()?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("mock-earthdata")
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let (login_door, login) = server::listen(1, ports.login)?;
        let (tea_door, tea) = server::listen(2, ports.tea)?;
        let (cumulus_door, cumulus) = server::listen(3, ports.cumulus)?;
        let (s3_door, s3) = server::listen(4, ports.s3)?;
        drop(entered);
        let state = Arc::new(State {
            tls: authority.is_some(),
            addresses: Addresses {
                login: login.address,
                tea: tea.address,
                cumulus: cumulus.address,
                s3: s3.address,
            },
            doors: Doors {
                login: login_door,
                tea: tea_door,
                cumulus: cumulus_door,
                s3: s3_door,
            },
            bearer: settings.bearer,
            token_api: settings.token_api,
            checksums: settings.checksums,
            script: Mutex::new(Script::new(settings.faults)),
            meter: Arc::new(Meter::default()),
            ledger: Mutex::new(Ledger::default()),
            accounts: Mutex::new(Accounts::new(settings.users)),
            link: Arc::default(),
            controls: Mutex::new(Controls {
                answer: Answer::Normal,
                lifetime: settings.lifetime,
                fail_every: settings.fail_every,
                turns: 0,
                shape: settings.shape,
                cmr: settings.cmr,
                clock_offset: 0,
            }),
            store: RwLock::new(store),
        });
        let tls = authority.as_ref().map(|made| made.acceptor.clone());
        let lean = settings.lean;
        let shared = state.clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("mock-earthdata".to_owned())
            .spawn(move || {
                let for_login = shared.clone();
                let protocol = Http(move |request, _| login::answer(for_login.clone(), request));
                runtime.spawn(serve(login, tls.clone(), protocol));
                for (porter, family) in [(tea, Family::Tea), (cumulus, Family::Cumulus)] {
                    let shared = shared.clone();
                    let protocol = Http(move |request, _| {
                        distribution::answer(shared.clone(), family, request)
                    });
                    runtime.spawn(serve(porter, tls.clone(), protocol));
                }
                if lean {
                    runtime.spawn(serve(s3, tls, Lean::new(shared)));
                } else {
                    let gate = Gate::new(shared);
                    let protocol = Http(move |request, link| gate.clone().answer(request, link));
                    runtime.spawn(serve(s3, tls, protocol));
                }
                // Either way it is over: told so, or the handle is gone.
                let _ = runtime.block_on(ended);
                runtime.shutdown_timeout(LAST_READ);
            })?;
        Ok(Self {
            state,
            ca_pem: authority.map(|made| made.ca_pem).unwrap_or_default(),
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The certificate of the CA that a world with `tls` is to be trusted by, as PEM; empty without `tls`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// `http://127.0.0.4:PORT`, path-style; https with `tls`, here and in all that follow.
    pub fn s3_url(&self) -> String {
        self.state.url(self.state.addresses.s3)
    }

    /// `/s3credentials` as the Thin Egress App serves it.
    pub fn tea_endpoint(&self) -> String {
        format!("{}/s3credentials", self.state.url(self.state.addresses.tea))
    }

    /// `/s3credentials` as Cumulus serves it.
    pub fn cumulus_endpoint(&self) -> String {
        format!(
            "{}/s3credentials",
            self.state.url(self.state.addresses.cumulus)
        )
    }

    /// The same JSON without any authentication.
    pub fn open_endpoint(&self) -> String {
        format!(
            "{}/s3credentials-open",
            self.state.url(self.state.addresses.tea)
        )
    }

    /// Earthdata Login, as `host:port`.
    pub fn earthdata_host(&self) -> String {
        self.state.addresses.login.to_string()
    }

    /// CMR, without `/search`: it is on the host of Earthdata Login.
    pub fn cmr_url(&self) -> String {
        self.state.url(self.state.addresses.login)
    }

    /// What CMR holds from now on, and how it answers.
    pub fn set_cmr(&self, cmr: Cmr) {
        self.state.controls.lock().cmr = cmr;
    }

    /// What was counted since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.state.meter.counters()
    }

    /// Sets counters and request records to zero; `in_flight` stays true.
    pub fn reset_counters(&self) {
        self.state.meter.reset();
    }

    /// The last 100,000 S3 requests since the reset, in order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.meter.records()
    }

    /// Puts an object, over one that may be there, and returns its ETag, in quotes. A bucket that is not there is made.
    /// New content has a new ETag; the same `Bytes` again have the same one, as in S3.
    ///
    /// # Panics
    ///
    /// If `content` is a file that cannot be looked at.
    pub fn put(&self, bucket: &str, key: &str, content: impl Into<Content>) -> String {
        let content = content.into();
        match self.state.store.write().put(bucket, key, content) {
            Ok(etag) => format!("\"{etag}\""),
            Err(error) => panic!("put {bucket}/{key}: {error}"),
        }
    }

    /// Removes an object; false if it was not there.
    pub fn remove(&self, bucket: &str, key: &str) -> bool {
        self.state.store.write().remove(bucket, key)
    }

    /// Moves an object to GLACIER: listed as such, and a GET of it is 403 `InvalidObjectState`. False if it is not there.
    pub fn archive(&self, bucket: &str, key: &str) -> bool {
        self.state.store.write().archive(bucket, key)
    }

    /// What credentials allow in a bucket from now on.
    pub fn set_bucket_access(&self, bucket: &str, access: Access) {
        self.state.store.write().set_access(bucket, access);
    }

    /// How `/s3credentials` answers from now on.
    pub fn set_answer(&self, answer: Answer) {
        self.state.controls.lock().answer = answer;
    }

    /// Each n-th request for credentials fails from now on, counted from here; `None`: none does.
    pub fn set_fail_every(&self, every: Option<u32>) {
        let mut controls = self.state.controls.lock();
        controls.fail_every = every;
        controls.turns = 0;
    }

    /// How long credentials live that are issued from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state.controls.lock().lifetime = lifetime;
    }

    /// How slow S3 is, for requests that are answered from now on.
    pub fn set_shape(&self, shape: Shape) {
        self.state.controls.lock().shape = shape;
    }

    /// Something goes wrong at S3 from now on, behind the rules that are there.
    pub fn script(&self, rule: FaultRule) {
        self.state.script.lock().add(rule);
    }

    /// Takes back all rules, those of the settings too, and with them their counts.
    pub fn clear_faults(&self) {
        self.state.script.lock().clear();
    }

    /// How often each rule's fault has really happened, in the order in which the rules were given.
    pub fn fired(&self) -> Vec<u64> {
        let counts = self.rule_counts();
        counts.iter().map(|count| count.fired).collect()
    }

    /// The rules, and how often each matched and fired.
    pub fn rule_counts(&self) -> Vec<RuleCount> {
        self.state.script.lock().counts()
    }

    /// S3 refuses connections from now on, or takes them again, see [`World::refuse_connections_of`].
    ///
    /// # Panics
    ///
    /// If the listener cannot be opened again.
    pub fn refuse_connections(&self, refuse: bool) {
        self.refuse_connections_of(Host::S3, refuse);
    }

    /// A host refuses connections from now on, or takes them again; on return it is so. Open connections go on.
    ///
    /// # Panics
    ///
    /// If the listener cannot be opened again.
    pub fn refuse_connections_of(&self, host: Host, refuse: bool) {
        if let Err(error) = self.state.doors.of(host).set_open(!refuse) {
            panic!("the listener of {host:?}: {error}");
        }
    }

    /// Resets all open connections to S3, whatever they are at; on return they are dead. Returns how many they were.
    pub fn kill_connections(&self) -> usize {
        self.state.doors.s3.kill_connections()
    }

    /// Lets all open connections to S3 hang for good, as after a change of the network: what is sent on them goes nowhere,
    /// and nothing says so.
    pub fn mute_connections(&self) {
        self.state.doors.s3.mute_connections();
    }

    /// The clocks of all hosts are so many seconds ahead (or behind) from now on: what `Date` says and the `expiration`
    /// of credentials issued from now on, and which signatures S3 finds too old or too new. How long credentials really
    /// live does not change.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state.controls.lock().clock_offset = seconds;
    }

    /// Other users, none of them locked. Cookies go on for users of the same name.
    pub fn set_users(&self, users: Vec<User>) {
        *self.state.accounts.lock() = Accounts::new(users);
    }

    /// Every session token issued so far is expired now.
    pub fn expire_all(&self) {
        self.state.ledger.lock().expire_all();
    }

    /// S3 does not know the credentials issued so far any more: it says `InvalidAccessKeyId`.
    pub fn forget_all(&self) {
        self.state.ledger.lock().forget_all();
    }

    /// S3 does not know the session tokens issued so far any more: it says `InvalidToken`.
    pub fn garble_tokens(&self) {
        self.state.ledger.lock().garble_tokens();
    }

    /// Every secret handed out so far: secret keys, session tokens, codes, cookies and user tokens made on demand. What
    /// the settings brought along (passwords, their tokens) is not among them.
    pub fn issued_secrets(&self) -> Vec<String> {
        self.state.ledger.lock().secrets()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has said what it had to say.
            let _ = thread.join();
        }
    }
}
