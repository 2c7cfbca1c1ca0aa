# What CRIU lacks where memory follows its process. Run as `perl -e THIS WORD ...`; the folder holds images and notes.
#
#   gate FOLDER ADDRESS PORT PEER   at the source: lets one machine fetch pages, and counts them. CRIU's page server ends with
#                                   it, and with nobody else: whoever fetches says goodbye also when it has failed
#   try ADDRESS PORT                at the target: whether there is a way to the gate
#   hold FOLDER PID COMMAND...      at the target: keeps the process waiting for its memory when the program that fetches it
#                                   dies, and ends it: the kernel would let it go on with zeroes
#   give FOLDER ADDRESS PORT PEER   at the source: sends the images to that machine
#   take ADDRESS PORT FOLDER        at the target: takes them
#   open PID                        at the source: the connections of a frozen process work again when it does
#   reset PID                       at the source: they are closed, for it knows less of them than whoever is at the other end
#   tree PID                        says the process and all below it
use strict; use warnings;
use IO::Socket::INET; use POSIX ();

my ($word, @rest) = @ARGV;
my $LENGTH = 32;    # of a message to CRIU's page server, from 4.2 on
my $HELLO = pack 'a32', 'ferry';

# Notes are there whole or not at all.
sub note { my ($name, $text) = @_; open my $f, '>', "$name.new" or exit 1; print $f "$text\n"; close $f; rename "$name.new", $name; }
sub slurp { open my $f, '<', $_[0] or return ''; local $/; my $text = <$f>; return defined $text ? $text : ''; }

sub listen_at {
    my ($address, $port) = @_;
    # One that was killed may still be on its way out.
    for (1 .. 40) {
        my $listen = IO::Socket::INET->new(LocalAddr => $address, LocalPort => $port, Listen => 8, ReuseAddr => 1);
        return $listen if $listen;
        select undef, undef, undef, 0.05;
    }
    return undef;
}

sub give {
    my ($folder, $address, $port, $peer) = @_;
    chdir $folder or exit 1;
    my $listen = listen_at($address, $port) or die "cannot listen on $address:$port: $!\n";
    my @images = glob '*.img';
    my $size = 0; $size += -s $_ for @images;
    alarm 30;
    my $client;
    until ($client && $client->peerhost eq $peer) { $client = $listen->accept; }
    alarm 0;
    $| = 1; print "$size\n";
    POSIX::dup2(fileno $client, 1);
    exec 'tar', '-cf', '-', @images or exit 1;
}

sub take {
    my ($address, $port, $folder) = @_;
    my $s;
    for (1 .. 100) {
        $s = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 5) and last;
        select undef, undef, undef, 0.02;
    }
    die "no way to $address:$port: $!\n" if !$s;
    POSIX::dup2(fileno $s, 0);
    exec 'tar', '-C', $folder, '-xf', '-' or exit 1;
}

sub gate {
    my ($folder, $address, $port, $peer) = @_;
    chdir $folder or exit 1;
    $SIG{PIPE} = 'IGNORE';
    my $listen = listen_at($address, $port);
    if (!$listen) { note('shut', "cannot listen on $address:$port: $!"); exit 1; }
    # A port for CRIU.
    my $inner = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)->sockport;
    note('gate', "$$ $inner");
    my ($client, $server, $asked, $out, $sent, $noted, $over) = (undef, undef, '', '', 0, 0, 0);
    my $reach = sub { $server ||= IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $inner) };
    my $leaves = sub { note('left', $_[0]); $client = undef; $out = ''; $over = 1; };
    while (1) {
        # Whoever has frozen the process is gone, and what it had in memory with it; or the folder is.
        exit 1 if -e 'served' || !-e 'gate';
        # At once: nobody else on this machine is to.
        $reach->() if -s 'ready';
        my ($in, $to) = ('', '');
        vec($in, fileno $_, 1) = 1 for grep { $_ } $listen, $client;
        vec($in, fileno $server, 1) = 1 if $server && length $out < 1 << 20;
        vec($to, fileno $client, 1) = 1 if $client && length $out;
        select $in, $to, undef, $server ? 0.05 : 0.005;
        if ($client && vec $to, fileno $client, 1) {
            my $n = $client->syswrite($out);
            if (defined $n) { substr $out, 0, $n, ''; $sent += $n; } elsif (!$!{EAGAIN}) { $leaves->("$!"); }
        }
        if ($server && vec $in, fileno $server, 1) {
            my $n = $server->sysread(my $bytes, 1 << 18);
            if (!$n) { note('left', 'the page server ended'); exit 1; }
            $out .= $bytes if $client;
        }
        if ($client && vec $in, fileno $client, 1) {
            my $n = $client->sysread(my $bytes, 1 << 16);
            if (!$n) { $server ? $leaves->(defined $n ? 'it hung up' : "$!") : undef $client; }
            else { $asked .= $bytes; }
            while ($client && length $asked >= $LENGTH) {
                my $message = substr $asked, 0, $LENGTH, '';
                my $kind = unpack 'V', $message;
                if ($message eq $HELLO) { $client->syswrite("here\n"); undef $client; }
                elsif ($kind == 7) { if ($reach->()) { $server->syswrite($message); } else { $leaves->('no page server'); } }
                # It says that it is done, also when it has failed.
                elsif ($kind == 0x1023 || $kind == 0x1024) { $out .= pack 'V', 0; }
                else { $leaves->("it said $kind"); }
            }
            $asked = '' if !$client;
        }
        if (vec $in, fileno $listen, 1) {
            my $new = $listen->accept;
            if ($new && !$client && !$over && $new->peerhost eq $peer) { $client = $new; $client->blocking(0); }
        }
        if ($sent != $noted) { note('sent', $sent); $noted = $sent; }
    }
}

sub try_gate {
    my ($address, $port) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => $address, PeerPort => $port, Timeout => 5);
    if (!$s) { print "no way to $address:$port: $!\n"; exit 1; }
    $s->syswrite($HELLO);
    alarm 5;
    my $n = $s->sysread(my $answer, 16);
    if (!$n) { print "$address:$port does not answer this machine: it may be seen there under another address\n"; exit 1; }
}

sub tree {
    my @all = @_;
    for (my $at = 0; $at < @all; $at++) {
        push @all, map { split ' ', slurp($_) } glob "/proc/$all[$at]/task/*/children";
    }
    return @all;
}

sub hold {
    my ($folder, $pid, @command) = @_;
    chdir $folder or exit 1;
    my $child = fork;
    exit 1 if !defined $child;
    if (!$child) { exec @command or POSIX::_exit(127); }
    note('fetcher', $child);
    my ($held, @kept) = 0;
    while (waitpid($child, POSIX::WNOHANG()) != $child) {
        if (!$held && -e 'take') {
            my $handle = syscall 434, $child, 0;
            for my $link (glob "/proc/$child/fd/*") {
                next if (readlink $link || '') !~ /userfaultfd/;
                my ($number) = $link =~ /(\d+)$/;
                my $fd = syscall 438, $handle, $number + 0, 0;
                if ($fd < 0) { print STDERR "cannot hold the memory: $!\n"; kill 'KILL', $child; last; }
                push @kept, $fd;
            }
            $held = 1;
            note('held', scalar @kept);
        }
        select undef, undef, undef, $held ? 0.05 : 0.002;
    }
    my $code = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    if ($code) {
        note('failed', $code);
        # Those that wait for a page wait on, for its descriptors are open here, until they are no more.
        kill 'KILL', tree($pid) if -e 'given';
    }
    unlink 'fetcher';
    note('pages', $code);
}

sub sockets {
    my ($closes, $pid) = @_;
    for my $pid (tree($pid)) {
        my $handle = syscall 434, $pid + 0, 0;
        next if $handle < 0;
        for my $link (glob "/proc/$pid/fd/*") {
            next if (readlink $link || '') !~ /^socket:/;
            my ($number) = $link =~ /(\d+)$/;
            my $fd = syscall 438, $handle, $number + 0, 0;
            next if $fd < 0;
            open my $s, '+<&=', $fd or next;
            # TCP_REPAIR off; no more for what is no TCP connection than a refusal.
            my $is_tcp = setsockopt $s, 6, 19, pack 'i', 0;
            # To no address at all: the kernel resets the connection.
            connect $s, pack 'S x14', 0 if $closes && $is_tcp;
            close $s;
        }
    }
}

my %words = (
    gate => \&gate, give => \&give, take => \&take, try => \&try_gate, hold => \&hold,
    open => sub { sockets(0, @_) }, reset => sub { sockets(1, @_) }, tree => sub { print join(' ', tree(@_)), "\n" },
);
$words{$word}->(@rest);
