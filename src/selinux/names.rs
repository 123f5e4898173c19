//! Names that the svirt_launcher module and the packages give to domains, types and files.

/// The launcher's own domain.
pub const OWN_DOMAIN: &str = "svirt_launcher_t";

/// The type of the launcher's program.
pub const OWN_TYPE: &str = "svirt_launcher_exec_t";

/// The domain of command lines that start no guest (`-version`, capability probes).
pub const INFO_DOMAIN: &str = "svirt_launcher_info_t";

/// The domain that opens images.
pub const READER_DOMAIN: &str = "svirt_launcher_reader_t";

/// The domain that parses the headers of images.
pub const PROBE_DOMAIN: &str = "svirt_launcher_probe_t";

/// The keeper's domain.
pub const KEEPER_DOMAIN: &str = "svirt_launcher_keeper_t";

/// The type of pipes that every domain may use, and that no guest may open anew.
pub const PIPE_TYPE: &str = "svirt_launcher_pipe_t";

/// The type of a guest's directory below /run (`--runtime-dir`), and of what the guest makes in it.
pub const GUEST_RUNTIME_TYPE: &str = "svirt_launcher_guest_runtime_t";

/// Where the packages install the program, as the module's file contexts have it.
pub const INSTALLED: &str = "/usr/bin/svirt-exec";

/// The command that loads the policy module; semodule(8).
pub const LOAD: &str = "semodule -X 200 -i /usr/share/selinux/packages/svirt_launcher.cil";

/// The domains of the launcher, of lines that start no guest, and of the keeper.
pub const OWN_DOMAINS: [&str; 3] = [OWN_DOMAIN, INFO_DOMAIN, KEEPER_DOMAIN];

/// Tells whether a domain is one of them.
pub fn is_own_domain(domain: &str) -> bool {
    OWN_DOMAINS.contains(&domain)
}
