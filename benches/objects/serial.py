"""What people publish for this: list, then get and put, one object after the other."""

import sys

import boto3

from_endpoint, from_bucket, to_endpoint, to_bucket = sys.argv[1:]
old = boto3.Session(profile_name="old").client("s3", endpoint_url=from_endpoint)
new = boto3.Session(profile_name="new").client("s3", endpoint_url=to_endpoint)

for page in old.get_paginator("list_objects_v2").paginate(Bucket=from_bucket):
    for entry in page.get("Contents", []):
        found = old.get_object(Bucket=from_bucket, Key=entry["Key"])
        if entry["Size"] < 64 << 20:
            new.put_object(
                Bucket=to_bucket, Key=entry["Key"], Body=found["Body"].read(), ContentType=found["ContentType"]
            )
        else:
            new.upload_fileobj(found["Body"], to_bucket, entry["Key"], ExtraArgs={"ContentType": found["ContentType"]})
