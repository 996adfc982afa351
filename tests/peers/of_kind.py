#!/usr/bin/env python3
"""Runs a probe of this folder against a listener that is no plain relay.

    of_kind.py KIND PROBE WORD...

KIND: lmtp          says LHLO, and hears an answer for each recipient
      submission    says STARTTLS and logs in before a case begins
      submissions   the same where TLS stands from the first byte
PROBE: smtp_torture or corpus_replay, with its words. The user is probe@dest.test of the profile `torture`.

Cases that a kind cannot pass as they stand are replaced here, or skipped by name; what only this kind has is added.
"""
import base64, importlib, os, socket, ssl, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import smtp_torture as st
from smtp_torture import Bad, Skip, need

KIND = sys.argv[1]
LOGIN = "AUTH PLAIN " + base64.b64encode(b"\0probe@dest.test\0torture-Secret-1").decode()
# What is about TLS or AUTH begins before either.
RAW = ("starttls_", "old_tls_", "auth_", "login_", "tls_port_")
PLAIN = st.Conn


class Socket(ssl.SSLSocket):
    def shutdown(self, how):
        """Says that nothing follows (close_notify) and closes this half; what the other side still says is read inside TLS."""
        patience = self.gettimeout()
        self.settimeout(0)
        try:
            self._sslobj.shutdown()
        except ssl.SSLWantReadError:
            pass
        self.settimeout(patience)
        socket.socket.shutdown(self, how)


class Conn(PLAIN):
    def __init__(self, o, banner=True):
        self.recipients, self.secure, self.said = 0, False, False
        super().__init__(o, banner=False)
        if KIND == "submissions":
            self.wrap()
        if banner:
            c, _ = self.reply()
            need(c == 220, "banner code %s" % c)
        if KIND != "lmtp" and not getattr(o, "raw", False):
            self.ehlo()
            if not self.secure:
                self.tls()
            self.log_in()

    def wrap(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.sslsocket_class = Socket
        self.s = context.wrap_socket(self.s, server_hostname="mx.test")
        self.secure = True

    def log_in(self):
        c = self.code(LOGIN)
        need(c == 235, "login gave %d" % c)

    def send(self, data):
        # The first word of a connection may come an octet at a time.
        if KIND == "lmtp" and (data[:4].upper() == b"EHLO" or not self.said and data[:1] in b"eE"):
            data = (b"l" if data[:1] == b"e" else b"L") + data[1:]
        self.said = True
        super().send(data)

    def cmd(self, text, t=None):
        c, lines = super().cmd(text, t)
        verb = text[:4].upper()
        if verb == "RCPT":
            self.recipients += c == 250
        elif verb in ("MAIL", "RSET", "EHLO", "LHLO"):
            self.recipients = 0
        return c, lines

    def env(self, *words, **more):
        """In a case that begins without a login, MAIL is refused before TLS, and needs one inside."""
        if KIND != "lmtp" and getattr(self.o, "raw", False):
            c = self.code("MAIL FROM:<%s>" % self.o.sender)
            need(c == 530, "MAIL without a login gave %d" % c)
            if not self.secure:
                return
            self.log_in()
        super().env(*words, **more)

    def data(self, body, t=None):
        c = super().data(body, t)
        if KIND == "lmtp":
            # RFC 2033 4.2: one for each recipient that was taken.
            for _ in range(self.recipients - 1):
                more = self.reply(t)[0]
                need(more == c, "answers of one message differ: %d, %d" % (c, more))
            self.recipients = 0
        return c


st.Conn = Conn


def replaced(name, why=None):
    """The case of this name is replaced; with a reason it is skipped."""
    at = next(i for i, f in enumerate(st.CASES) if f.__name__ == name)

    def put(body):
        body.__name__ = name
        st.CASES[at] = body
    if why is None:
        return put

    def skip(o):
        raise Skip(why)
    put(skip)


# ---------------------------------------------------------------- LMTP
if KIND == "lmtp":
    replaced("helo_then_mail", "LMTP has no HELO")

    @replaced("bdat_after_refused_rcpt_is_swallowed")
    def _(o):
        """RFC 2033 4.2: nobody was taken, so nothing is answered, and the octets are gone all the same."""
        with Conn(o) as c:
            c.ehlo()
            c.want("CHUNKING")
            c.code("MAIL FROM:<%s>" % o.sender)
            c.code("RCPT TO:<x@elsewhere.example>")
            c.send(b"BDAT 28 LAST\r\nMAIL FROM:<evil@src.test>\r\n1")
            got = c.drain(1.5)
            need(got == [], "answers to a message nobody was to get: %s" % got)
            need(c.code("NOOP") == 250, "out of step")

    @st.case
    def lmtp_knows_no_helo(o):
        with Conn(o) as c:
            for word in (b"HELO", b"EHLO"):
                PLAIN.send(c, word + b" probe.test\r\n")
                x = c.reply()[0]
                need(x == 500, "%s gave %d" % (word.decode(), x))
            c.ehlo()
            need("AUTH" not in c.ext and "BURL" not in c.ext and "FUTURERELEASE" not in c.ext, str(c.ext))

    @st.case
    def lmtp_answers_for_each_recipient(o):
        for last in (b"", b"BDAT"):
            tok = st.token()
            with Conn(o) as c:
                c.ehlo()
                c.code("MAIL FROM:<%s>" % o.sender)
                got = [c.code("RCPT TO:<%s>" % to) for to in ("b@dest.test", "x@elsewhere.example", "c@dest.test", "d@dest.test")]
                need([x == 250 for x in got] == [True, False, True, True], str(got))
                text = st.msg(tok)
                if last:
                    c.send(b"BDAT %d LAST\r\n" % len(text) + text)
                else:
                    need(c.code("DATA") == 354, "DATA")
                    c.send(text + b".\r\n")
                got = c.drain(1.5)
                need(got == [250, 250, 250], str(got))
            m = st.arrives(o, tok)
            need(m is None or len(m[1]) == 3, "recipients at the next hop: %s" % (m and m[1]))

    @st.case
    def lmtp_refuses_for_each_recipient(o):
        """Smuggling over LMTP: as many refusals as recipients, and no more."""
        with Conn(o) as c:
            c.ehlo()
            c.code("MAIL FROM:<%s>" % o.sender)
            need([c.code("RCPT TO:<%s>" % to) for to in ("b@dest.test", "c@dest.test")] == [250, 250], "RCPT")
            need(c.code("DATA") == 354, "DATA")
            c.send(st.msg(st.token(), b"first\n.\nMAIL FROM:<evil@src.test>\r\n") + b".\r\n")
            got = c.drain(1.5)
            need(got == [550, 550, "EOF"], str(got))


# ---------------------------------------------------------------- submission
def login_comes_first(o):
    """Nobody is taken at his word: not in clear, not inside TLS, and not by HELO."""
    with Conn(o) as c:
        c.ehlo()
        if KIND == "submission":
            need(not c.has("AUTH"), "AUTH is offered in clear")
            need(c.code("MAIL FROM:<a@src.test>") == 530, "MAIL in clear")
            need(c.code(LOGIN) in (504, 538), "a login in clear")
            c.tls()
        need(c.has("AUTH"), "AUTH is not offered inside TLS")
        for line in ("MAIL FROM:<a@src.test>", "MAIL FROM:<>", "MAIL FROM:<a@src.test> AUTH=a@src.test"):
            x = c.code(line)
            need(x == 530, "%s gave %d" % (line, x))
        need(c.code("RCPT TO:<b@dest.test>") == 503, "RCPT")
        need(c.code("DATA") == 503, "DATA")
        need(c.code("HELO probe.test") == 250 and c.code("MAIL FROM:<a@src.test>") == 530, "MAIL after HELO")
        c.ehlo()
        c.log_in()
        need(c.code("MAIL FROM:<a@src.test>") == 250, "MAIL after the login")


def tls_port_takes_no_plain_text(o):
    """Commands in clear to a port that begins with TLS are obeyed by nobody, and hold nobody up."""
    stuck = []
    for text in (b"EHLO probe.test\r\nQUIT\r\n", b"", b"\x16\x03\x01\x02\x00\x01", b"\x80\x2e\x01\x00\x02"):
        s = socket.create_connection((o.host, o.port), timeout=2)
        s.sendall(text)
        stuck.append(s)
    try:
        got = stuck[0].recv(200)
    except OSError:
        got = b""
    need(got[:3] not in (b"220", b"250", b"221"), "answered %r" % got)
    took = st.alive(o)
    for s in stuck:
        s.close()
    return "another client served in %.2f s" % took


if KIND in ("submission", "submissions"):
    st.case(login_comes_first)
if KIND == "submissions":
    st.case(tls_port_takes_no_plain_text)
    replaced("auth_not_on_plain_line", "there is no plain line")

    @replaced("old_tls_refused")
    def _(o):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        import warnings
        warnings.simplefilter("ignore")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with socket.create_connection((o.host, o.port), timeout=o.timeout) as s:
            try:
                context.wrap_socket(s, server_hostname="mx.test")
            except OSError as e:
                return "refused (%s)" % str(e)[:40]
        raise Bad("TLS 1.1 or older agreed")


def begun(f):
    """The case, which logs in first unless it is about that."""
    def run(o):
        o.raw = f.__name__.startswith(RAW)
        return f(o)
    run.__name__ = f.__name__
    return run


st.CASES[:] = [begun(f) for f in st.CASES]
probe = importlib.import_module(sys.argv[2])
sys.argv[1:] = sys.argv[3:]
sys.exit(probe.main())
