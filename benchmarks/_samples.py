def samples(context):
    return {}
