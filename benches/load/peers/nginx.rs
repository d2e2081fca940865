//! Configures nginx as a plain proxy, or with a key check in Lua, which represents the gateways that are built on
//! nginx.

use std::fmt::Write as _;

use super::{Arguments, Site};
use crate::Result;
use crate::upstream::{EVENTS, lua_modules, nginx_configuration};

impl Site<'_> {
    pub(super) fn nginx(&self, lua: bool) -> Result<Arguments> {
        let (port, upstream) = (self.port, self.upstream);
        let (modules, prelude, check) = match lua {
            true => self.lua()?,
            false => Default::default(),
        };
        // Buffering is off for event streams, as nginx's users configure it. All other settings are nginx's defaults.
        let buffering = if self.case.path == EVENTS { "proxy_buffering off;" } else { "" };
        let http = format!(
            r#"
    {prelude}
    upstream people {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            {check}
            {buffering}
            proxy_pass http://people;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
"#
        );
        let text = nginx_configuration(&self.folder, &modules, &http);
        Ok(vec!["-c".into(), self.write("nginx.conf", &text)?, "-q".into(), "-e".into(), "stderr".into()])
    }

    /// The lines that load modules, the start of the http block, and the key check of the location.
    fn lua(&self) -> Result<(String, String, String)> {
        let mut list = String::new();
        for (hash, account) in self.keys.hashes() {
            writeln!(list, "{} a{account}", hash.to_hex())?;
        }
        let list = self.write("keys.txt", &list)?;
        let (window, most) = if self.setup.limited { (86_400, 1) } else { (60, 2_000_000_000) };
        // SHA-256 by the libcrypto that nginx has loaded, a look-up, a counter per key in place of a limit, and a
        // counter per account in place of credits.
        let prelude = format!(
            r#"
    lua_shared_dict accounts 64m;
    lua_shared_dict rates 64m;
    lua_shared_dict credits 16m;
    init_by_lua_block {{
        require "resty.core"
        local ffi = require "ffi"
        ffi.cdef[[unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);]]
        local digest = ffi.new("unsigned char[32]")
        local accounts, rates, credits = ngx.shared.accounts, ngx.shared.rates, ngx.shared.credits
        local function byte(hex) return string.char(tonumber(hex, 16)) end
        for line in io.lines("{list}") do
            local hash, account = line:match("^(%x+) (%w+)$")
            accounts:set(hash:gsub("%x%x", byte), account)
        end
        package.loaded.gate = function()
            local key = ngx.var.http_x_api_key
            if not key then return ngx.exit(401) end
            ffi.C.SHA256(key, #key, digest)
            local hash = ffi.string(digest, 32)
            local account = accounts:get(hash)
            if not account then return ngx.exit(401) end
            if rates:incr(hash, 1, 0, {window}) > {most} then return ngx.exit(429) end
            if credits:incr(account, 1, 0) > 2000000000 then return ngx.exit(403) end
            ngx.req.clear_header("x-api-key")
            ngx.req.set_header("x-tollgate-account", account)
        end
    }}"#
        );
        let check = "access_by_lua_block { require(\"gate\")() }".to_owned();
        Ok((lua_modules()?, prelude, check))
    }
}
