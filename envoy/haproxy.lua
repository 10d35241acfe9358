-- Asks barong whether a request may pass, as Traefik and Caddy do (forward-auth). haproxy.cfg loads it, with the address of
-- barong's checks. It answers what is refused, and says what may pass in the variable txn.barong_allows.
local checks = ...

-- Exact names: what is not listed does not reach the check.
local asked = {
    "accept", "accept-language", "cookie", "origin", "user-agent", "x-csrf-token", "x-auth-apikey", "x-auth-nonce",
    "x-auth-signature", "signature", "signature-input", "content-digest", "x-forwarded-for", "x-forwarded-host",
    "x-forwarded-proto", "x-request-id", "traceparent",
}

-- What a client is told with a refusal.
local told = {
    "content-type", "cache-control", "set-cookie", "www-authenticate", "location", "retry-after", "x-request-id",
    "content-security-policy", "referrer-policy", "permissions-policy", "x-content-type-options",
    "cross-origin-opener-policy",
}

-- HAProxy counts the values of a header from 0.
local function first(values)
    return values and values[0] or ""
end

local function ask(txn)
    local request = txn.http:req_get_headers()
    local headers = {
        ["user-agent"] = { "" }, -- or HAProxy would send its own, and sessions that are bound to none would not fit
        ["x-forwarded-method"] = { txn.f:method() },
        ["x-forwarded-uri"] = { txn.f:pathq() },
        -- Whether there is a body, which the check does not get: a request that is signed whole covers a digest of it.
        ["x-original-framing"] = {
            "HTTP/" .. txn.f:req_ver() .. " " .. first(request["content-length"]) .. first(request["transfer-encoding"]),
        },
    }
    for _, name in ipairs(asked) do
        headers[name] = request[name] or headers[name]
    end
    return core.httpclient():get {
        url = "http://127.0.0.1/api/v2/forward-auth", dst = checks, headers = headers, timeout = 1000,
    }
end

core.register_action("barong", { "http-req" }, function(txn)
    local answer = ask(txn)
    if answer.status == 200 then
        if answer.headers["authorization"] then
            txn.http:req_set_header("authorization", first(answer.headers["authorization"]))
        end
        if answer.headers["set-cookie"] then
            txn:set_var("txn.barong_cookie", first(answer.headers["set-cookie"]))
        end
        txn:set_var("txn.barong_allows", true)
        return
    end
    -- barong cannot be reached, or cannot decide: haproxy.cfg says so.
    if not answer.status or answer.status < 300 or answer.status >= 500 then
        return
    end
    local reply = txn:reply()
    reply:set_status(answer.status)
    for _, name in ipairs(told) do
        local values = answer.headers[name] or {}
        local i = 0
        while values[i] do
            reply:add_header(name, values[i])
            i = i + 1
        end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
end)
