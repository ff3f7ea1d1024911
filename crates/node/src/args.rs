//! The flags that both kinds of node have.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Flags of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The network link, as the login server prints it: ahoy://HOST:PORT#KEY
    #[arg(long, value_name = "LINK")]
    pub network: String,
    /// A token from `ahoy-login node-token`; needed at the first start only
    #[arg(long, env = "AHOY_NODE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Folder for the node's key and certificate; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Address to serve at: UDP and, on the same port, TLS over TCP for networks that block UDP; may be given several times, for IPv4 and
    /// IPv6
    #[arg(long, value_name = "IP:PORT", required = true)]
    pub listen: Vec<SocketAddr>,
    /// Another address for TLS over TCP, best on port 443, which most networks let through; may be given several times
    #[arg(long, value_name = "IP:PORT")]
    pub tcp: Vec<SocketAddr>,
    /// Where others reach this node, if that is not the listen address
    #[arg(long, value_name = "HOST:PORT")]
    pub public: Option<String>,
    /// Address for counters to be read at
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,
}
