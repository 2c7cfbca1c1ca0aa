//! An address that services use, on one host or another: taken away, guarded, given, announced.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::hosts::Shell;

/// An IPv4 address that goes with a service from host to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address: `203.0.113.7`.
    pub ip: Ipv4Addr,
    /// Its network's length; 32 unless given.
    #[serde(default = "thirty_two")]
    #[schemars(range(min = 1, max = 32))]
    pub prefix: u8,
    /// The network device of either host that carries it: `eth0`.
    pub device: String,
    /// That of the target where it has another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_there: Option<String>,
}

fn thirty_two() -> u8 {
    32
}

/// Drops what comes to an address while nobody behind it is ready to answer: a kernel that has the address and not yet the
/// connection would reset it. In shell: `$ip` the address, `$guard` the guard's name.
pub const GUARD: &str = r"nft -f - <<GUARD
table inet $guard {
  chain in { type filter hook input priority -300; ip daddr $ip drop; }
}
GUARD
";
/// Takes the guard away, if it is there.
pub const UNGUARD: &str = r#"nft delete table inet "$guard" 2>/dev/null || true"#;

/// Takes the address away, if it is there. `$1` the address with its length, `$2` the device.
const AWAY: &str = r#"ip addr show dev "$2" to "${1%/*}/32" | grep -q inet || exit 0; ip addr del "$1" dev "$2""#;

/// Gives the address, if it is not there, and tells the neighbours, once a second for a while: they take no second word on an
/// address within a second of the first. It ends when the address goes. The two programs called `arping` name the sender differently,
/// and speak for the host's own address unless they are told. `$1` the address with its length, `$2` the device.
const GIVE: &str = r#"has() { ip addr show dev "$2" to "${1%/*}/32" | grep -q inet; }
has "$@" || ip addr add "$1" dev "$2" || exit
setsid sh -c 'case "$(arping --help 2>&1)" in *" -S <"*) from=-S;; *) from=-s;; esac; ip=${1%/*}
  i=0; while [ $i -lt 4 ] && ip addr show dev "$2" to "$ip/32" | grep -q inet; do i=$((i+1))
  arping -q -U -c 1 -w 1 -I "$2" "$from" "$ip" "$ip"; done' announce "$1" "$2" </dev/null >/dev/null 2>&1 & exit 0"#;

/// Whether the host has the address: says so. `$1` the address, `$2` the device.
const HAS: &str = r#"command -v arping >/dev/null || { echo 'arping is missing' >&2; exit 5; }
ip link show dev "$2" >/dev/null || exit 6; if ip addr show dev "$2" to "$1/32" | grep -q inet; then echo yes; else echo no; fi"#;

impl Address {
    /// With its length.
    pub fn full(&self) -> String {
        format!("{}/{}", self.ip, self.prefix)
    }

    /// Its device at the source or at the target.
    pub fn device(&self, is_target: bool) -> &str {
        self.device_there.as_deref().filter(|_| is_target).unwrap_or(&self.device)
    }

    /// Whether the host has it.
    pub async fn is_at(&self, shell: &Shell, is_target: bool) -> Result<bool, StepError> {
        let finished = shell.try_script(HAS, &[&self.ip.to_string(), self.device(is_target)], None).await?;
        let missing = |what: &str, help: &str| {
            Err(StepError::permanent(format!("host `{}` has no {what}", shell.host())).help(help.to_owned()))
        };
        match finished.code {
            Some(5) => missing("`arping`", "install it (Debian: the package `arping`): neighbours are told of the address by it"),
            Some(6) => missing(&format!("network device `{}`", self.device(is_target)), "correct `device` of the address"),
            _ => {
                shell.succeeded("look for the address", &finished)?;
                Ok(finished.stdout.starts_with(b"yes"))
            }
        }
    }

    /// Takes it away; none there is no error.
    pub async fn away(&self, shell: &Shell, is_target: bool) -> Result<(), StepError> {
        shell.script("take the address away", AWAY, &[&self.full(), self.device(is_target)]).await.map(drop)
    }

    /// Gives it to the host, and tells the neighbours.
    pub async fn give(&self, shell: &Shell, is_target: bool) -> Result<(), StepError> {
        shell.script("give the host the address", GIVE, &[&self.full(), self.device(is_target)]).await.map(drop)
    }

    /// The same, with what comes to it dropped until the guard is gone.
    pub async fn give_guarded(&self, shell: &Shell, is_target: bool, guard: &str) -> Result<(), StepError> {
        let script = format!("ip=${{1%/*}}; guard=$3; {UNGUARD}\n{GUARD}{GIVE}");
        shell.script("give the host the guarded address", &script, &[&self.full(), self.device(is_target), guard]).await.map(drop)
    }
}
